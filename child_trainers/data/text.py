"""Text in memory: training, validation and test parts as token indices."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from automl.child_trainers.data.dataset import DataError

PARTS = ("train", "validation", "test")
UNKNOWN = "<unk>"
END = "<eos>"  # the token at the end of a line
MIN_TOKENS = 10  # in a text of one line
MAX_TYPES = 50_000  # in a vocabulary without a given size
MAX_UNKNOWN = 0.8  # fraction of the training tokens that may be unknown


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextData:
    """A text as token indices.

    Attributes:
        name: the name of the text in reports.
        train, validation, test: int32 (count,), indices into `vocabulary`.
        vocabulary: the types, ordered by falling frequency in the training part.
        level: `word` or `character`, the unit of a type.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]
    level: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over the vocabulary and all parts. It does not depend on the name."""
        digest = hashlib.sha256("\0".join(self.vocabulary).encode())
        for part in PARTS:
            array = getattr(self, part)
            digest.update(f"{part} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def limit(self, num_train: int | None, num_validation: int | None) -> TextData:
        """Returns the text with the first training and validation tokens (None: all). Raises DataError if there are
        fewer."""
        for part, wanted in (("train", num_train), ("validation", num_validation)):
            found = len(getattr(self, part))
            if wanted is not None and wanted > found:
                raise DataError(
                    f"{self.name} has {found:,} {self.level}s in its part for {part}, so task.num_{part} cannot be "
                    f"{wanted:,}; take them all with --set task.num_{part}=null."
                )
        return dataclasses.replace(self, train=self.train[:num_train], validation=self.validation[:num_validation])


def make_text(
    name: str, parts: Mapping[str, Sequence[str]], *, level: str = "word", vocabulary_size: int | None = None
) -> TextData:
    """Makes the vocabulary of a text and replaces tokens by their indices.

    Args:
        parts: the tokens of train, validation and test.
        level: `word` or `character`, the unit of a token.
        vocabulary_size: the number of types in the vocabulary, the most frequent ones of the training part. All other
            types, and those that only the other parts have, become `<unk>`, which counts as one type. None takes all
            types of the training part.

    Raises:
        DataError: no size was given, and there are more than `MAX_TYPES` types; or the vocabulary covers less than a
            fifth of the training part.
    """
    counts = collections.Counter(parts["train"])
    counts.pop(UNKNOWN, None)
    if vocabulary_size is None and len(counts) > MAX_TYPES:
        raise DataError(
            f"{name} has {len(counts):,} different {level}s, too many for a model; keep only the most frequent "
            "with --set task.vocabulary_size=10000, or read it as --set task.level=character."
        )
    known = sorted(counts, key=lambda token: (-counts[token], token))
    has_unseen = any(token not in counts for part in PARTS for token in parts[part])
    if has_unseen or (vocabulary_size is not None and len(known) > vocabulary_size):
        # `<unk>` counts as one type, so that the model has `vocabulary_size` types.
        known = known[: None if vocabulary_size is None else vocabulary_size - 1]
        frequency = len(parts["train"]) - sum(counts[token] for token in known)
        if len(known) < len(counts) and frequency > MAX_UNKNOWN * len(parts["train"]):
            characters = ", or read it as --set task.level=character" if level == "word" else ""
            raise DataError(
                f"{name} has {len(counts):,} different {level}s, and {frequency / len(parts['train']):.0%} of its text "
                f"are none of the {len(known):,} most frequent, so a model would learn little of it; raise "
                f"task.vocabulary_size{characters}."
            )
        known = sorted([*known, UNKNOWN], key=lambda token: (-counts.get(token, frequency), token))
    place = {token: index for index, token in enumerate(known)}
    unknown = place.get(UNKNOWN, 0)
    arrays = {part: np.array([place.get(token, unknown) for token in parts[part]], np.int32) for part in PARTS}
    return TextData(name=name, vocabulary=tuple(known), level=level, **arrays)


def tokens_of(text: str, level: str) -> list[str]:
    """The words of each line, followed by `<eos>`; or the characters, with `<eos>` in place of each newline."""
    if level == "character":
        return [END if character == "\n" else character for character in text]
    return [token for line in text.splitlines() for token in (*line.split(), END)]


def load_text(path: Path, *, level: str, vocabulary_size: int | None) -> TextData:
    """Loads a user's UTF-8 text. The first eight tenths are for training, one for validation and the last for test.

    Args:
        level: `word` or `character`, the unit of a token.
        vocabulary_size: types in the vocabulary, None for all.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or has too few tokens.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {content[error.start]:#04x} at position {error.start:,}; save it as UTF-8."
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty; a language model is trained on running text.")
    if len(lines) > 1:
        tokens = tokens_of(text, level)
    else:
        # No `<eos>`: the end of the only line would be a token that never occurs in training.
        tokens = list(lines[0].strip()) if level == "character" else lines[0].split()
        if len(tokens) < MIN_TOKENS:
            characters = "; read a text without spaces as --set task.level=character" if level == "word" else ""
            count = f"{len(tokens)} {level}{'' if len(tokens) == 1 else 's'}"
            raise DataError(f"{path} holds only {count} in one line, too little to learn from{characters}.")
    return make_text(path.name, tenths(tokens), level=level, vocabulary_size=vocabulary_size)


def tenths(tokens: Sequence[str]) -> dict[str, Sequence[str]]:
    """Splits tokens in order: eight tenths for training, one for validation and one for test."""
    first, second = len(tokens) * 8 // 10, len(tokens) * 9 // 10
    return {"train": tokens[:first], "validation": tokens[first:second], "test": tokens[second:]}
