"""Text as every trainer sees it: training, validation and test as numbers of words or characters, in memory."""

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
END = "<eos>"  # of a line
MIN_TOKENS = 10  # of a text of one line
MAX_TYPES = 50_000  # of a vocabulary that nobody has limited
MAX_UNKNOWN = 0.8  # of the training part, a share


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextData:
    """Running text.

    Attributes:
        name: what reports call the text.
        train, validation, test: int32 (count,), indices into `vocabulary`.
        vocabulary: the types, each once, the most frequent of the training part first.
        level: `word` or `character`: what a type is.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]
    level: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over the vocabulary and all parts: equal for equal texts read alike, whatever their name."""
        digest = hashlib.sha256("\0".join(self.vocabulary).encode())
        for part in PARTS:
            array = getattr(self, part)
            digest.update(f"{part} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def limit(self, num_train: int | None, num_validation: int | None) -> TextData:
        """The same with the first tokens of training and of validation (None: all). Raises DataError."""
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
    """Numbers the tokens of a text.

    Args:
        parts: the tokens of train, validation and test.
        vocabulary_size: so many types of the training part are known, the most frequent ones; all others, and those
            that only the other parts have, become `<unk>`. None knows all.

    Raises:
        DataError: there are more types than a model could have, and no size was given; or those that are known make up
            less than a fifth of the training part.
    """
    counts = collections.Counter(parts["train"])
    counts.pop(UNKNOWN, None)
    if vocabulary_size is None and len(counts) > MAX_TYPES:
        raise DataError(
            f"{name} has {len(counts):,} different {level}s, too many for a model to tell apart; know the most "
            "frequent alone with --set task.vocabulary_size=10000, or read it as --set task.level=character."
        )
    known = sorted(counts, key=lambda token: (-counts[token], token))
    strange = any(token not in counts for part in PARTS for token in parts[part])
    if strange or (vocabulary_size is not None and len(known) > vocabulary_size):
        # The unknown is counted as one of them, so that the size is that of the model.
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
    """The words of each line and an `<eos>` at its end; or the characters, with an `<eos>` for a line's end."""
    if level == "character":
        return [END if character == "\n" else character for character in text]
    return [token for line in text.splitlines() for token in (*line.split(), END)]


def load_text(path: Path, *, level: str, vocabulary_size: int | None) -> TextData:
    """The user's own UTF-8 text: its first eight tenths to train, a tenth to validate, the last tenth to test.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or holds too little.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {content[error.start]:#04x} at place {error.start:,}; save it as UTF-8."
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty; a language model is trained on running text.")
    if len(lines) > 1:
        tokens = tokens_of(text, level)
    else:
        # The end of the only line would be a token that training never meets.
        tokens = list(lines[0].strip()) if level == "character" else lines[0].split()
        if len(tokens) < MIN_TOKENS:
            characters = "; read a text without spaces as --set task.level=character" if level == "word" else ""
            count = f"{len(tokens)} {level}{'' if len(tokens) == 1 else 's'}"
            raise DataError(f"{path} holds only {count} in one line, too little to learn from{characters}.")
    return make_text(path.name, tenths(tokens), level=level, vocabulary_size=vocabulary_size)


def tenths(tokens: Sequence[str]) -> dict[str, Sequence[str]]:
    """Eight tenths to train, one to validate and one to test, in order: text is read forwards."""
    first, second = len(tokens) * 8 // 10, len(tokens) * 9 // 10
    return {"train": tokens[:first], "validation": tokens[first:second], "test": tokens[second:]}
