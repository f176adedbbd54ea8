"""Describes in one line how data were read, and finds likely mistakes in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from automl.child_trainers.data.dataset import ImageData
from automl.child_trainers.data.text import END, UNKNOWN, TextData

MAX_MAJORITY = 0.9  # fraction of the training images that may have the same class
MAX_WORD_LENGTH = 12.0  # mean characters per word; the mean of Finnish and Turkish text is 8
MAX_UNSPACED_LENGTH = 3.0  # the same for scripts without spaces; the mean of segmented Chinese text is 1.7
MAX_UNKNOWN = 0.5  # fraction of the validation tokens that may be unknown
MAX_NAMED = 5  # classes or channels listed in one sentence
# Code points of scripts without spaces: Thai to Tibetan, Burmese, Khmer, Japanese kana, Chinese characters.
UNSPACED = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclasses.dataclass(frozen=True)
class DataSummary:
    """How data were read.

    Attributes:
        line: number, shape and values of the data.
        warnings: likely mistakes, one sentence each, with the remedy.
    """

    line: str
    warnings: tuple[str, ...]


def describe_images(whole: ImageData, used: ImageData) -> DataSummary:
    """Describes image data.

    Args:
        whole: all images of the data set.
        used: the images that are used for training and validation.
    """
    x = used.x_train
    parts = [
        _part(len(used.x_train), len(whole.x_train), "training"),
        _part(len(used.x_validation), len(whole.x_validation), "validation"),
    ]
    if used.x_test is not None:
        parts.append(f"{len(used.x_test):,} test")
    counts = np.bincount(used.y_train, minlength=used.num_classes)
    line = (
        f"{_listed(parts)} images of {' x '.join(map(str, used.input_shape))} (height x width x channels), {x.dtype} "
        f"from {x.min():g} to {x.max():g}; {used.num_classes} classes, the largest {counts.max() / len(x):.1%} of the "
        "training images"
    )
    warnings = [*_check_shape(used), *_check_labels(whole, used), *_check_values(used)]
    return DataSummary(line, tuple(warnings))


def _check_shape(data: ImageData) -> list[str]:
    height, width, channels = data.input_shape
    if height > 4 or width <= 4 or channels <= 4:
        return []
    return [
        f"Images of shape {data.input_shape} are read as {height} high, {width} wide, with {channels} channels. If the "
        "channels come first, move them to the end: x.transpose(0, 2, 3, 1)."
    ]


def _check_labels(whole: ImageData, used: ImageData) -> list[str]:
    warnings = []
    train = np.bincount(whole.y_train, minlength=whole.num_classes)
    held_out = np.zeros(whole.num_classes, np.int64)
    for y in (whole.y_validation, whole.y_test):
        if y is not None:
            held_out += np.bincount(y, minlength=whole.num_classes)
    empty = np.flatnonzero(train + held_out == 0)
    if len(empty) and empty[0] == 0:
        first = int(np.flatnonzero(train + held_out)[0])
        warnings.append(
            f"Labels run from {first} to {whole.num_classes - 1}, so {_classes(range(first))} "
            f"{'has' if first == 1 else 'have'} no images and the network has outputs that nothing uses; let them "
            f"count from 0: y - {first}."
        )
        empty = empty[empty > first]
    if len(empty):
        warnings.append(
            f"Labels have gaps: no image is of {_classes(empty)}, and the network has outputs that nothing uses; "
            "number the classes 0, 1, 2, … without gaps."
        )
    unseen = np.flatnonzero((train == 0) & (held_out > 0))
    if len(unseen):
        warnings.append(
            f"{_classes(unseen, begins=True)} {_occur(unseen)} in the validation or test images and not in the "
            "training images, so no network can learn it."
        )
    missing = np.flatnonzero((train > 0) & (np.bincount(used.y_train, minlength=whole.num_classes) == 0))
    if len(missing):
        warnings.append(
            f"{_classes(missing, begins=True)} {_occur(missing)} in the training images, but not among the "
            f"{len(used.y_train):,} that task.num_train keeps; raise it, or take all with --set task.num_train=null."
        )
    single = np.flatnonzero(train == 1)
    if len(single):
        warnings.append(f"{_classes(single, begins=True)} {_occur(single)} in only one training image.")
    if train.max() > MAX_MAJORITY * len(whole.y_train):
        warnings.append(
            f"{train.max() / len(whole.y_train):.1%} of the training images are of class {train.argmax()}: a network "
            "that always predicts this class has that accuracy."
        )
    if used.y_validation.min() == used.y_validation.max():
        warnings.append(f"All validation images are of class {used.y_validation[0]}, so any network may seem perfect.")
    return warnings


def _check_values(data: ImageData) -> list[str]:
    lowest, highest = data.x_train.min(axis=(0, 1, 2)), data.x_train.max(axis=(0, 1, 2))
    constant = np.flatnonzero(lowest == highest)
    if len(constant) == data.input_shape[2]:
        values = ", ".join(f"{value:g}" for value in lowest[:MAX_NAMED])
        return [f"All training images are equal, every pixel is {values}: there is nothing to learn from."]
    if len(constant):
        named = ", ".join(map(str, constant[:MAX_NAMED]))
        return [
            f"Channel {named} has one value, {lowest[constant[0]]:g}, in all training images, and gives no information."
        ]
    return []


def describe_text(whole: TextData, used: TextData) -> DataSummary:
    """Describes a text; see `describe_images` for the arguments."""
    known = len(used.vocabulary) - (UNKNOWN in used.vocabulary)
    unknown = [_unknown(used, part) for part in (used.train, used.validation)]
    line = (
        f"{_part(len(used.train), len(whole.train), 'training')}, "
        f"{_part(len(used.validation), len(whole.validation), 'validation')} and {len(used.test):,} test "
        f"{used.level}s; {known:,} different ones known, {unknown[0]:.1%} unknown in training and {unknown[1]:.1%} in "
        "validation"
    )
    warnings = _check_words(used)
    if unknown[1] > MAX_UNKNOWN:
        characters = ", or read the text as --set task.level=character" if used.level == "word" else ""
        warnings.append(
            f"{unknown[1]:.1%} of the validation {used.level}s are unknown, which is easy to predict: raise "
            f"task.vocabulary_size{characters}."
        )
    return DataSummary(line, tuple(warnings))


def _check_words(data: TextData) -> list[str]:
    if data.level != "word":
        return []
    lengths = np.array([0 if token in (UNKNOWN, END) else len(token) for token in data.vocabulary])
    letters = np.array([0 if token in (UNKNOWN, END) else _num_unspaced(token) for token in data.vocabulary])
    counts = np.bincount(data.train, minlength=len(data.vocabulary)) * (lengths > 0)
    num_words = max(1, int(counts.sum()))
    mean = float((counts * lengths).sum()) / num_words
    unspaced = float((counts * letters).sum()) > 0.5 * mean * num_words
    if mean <= (MAX_UNSPACED_LENGTH if unspaced else MAX_WORD_LENGTH):
        return []
    return [
        f"Words are separated by spaces, and those of {data.name} have {mean:.0f} characters on average; read a "
        "text without spaces as --set task.level=character."
    ]


def _num_unspaced(token: str) -> int:
    """The number of characters in a token that belong to scripts without spaces."""
    return sum(any(first <= ord(letter) <= last for first, last in UNSPACED) for letter in token)


def _unknown(data: TextData, part: np.ndarray) -> float:
    """The fraction of unknown tokens in a part."""
    if UNKNOWN not in data.vocabulary or not len(part):
        return 0.0
    return float((part == data.vocabulary.index(UNKNOWN)).mean())


def _part(used: int, total: int, name: str) -> str:
    return f"{used:,} {name}" if used == total else f"{used:,} of {total:,} {name}"


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _classes(classes: Sequence[int] | np.ndarray, *, begins: bool = False) -> str:
    """`class 3` or `classes 3, 5, 7, …`."""
    named = ", ".join(str(number) for number in classes[:MAX_NAMED])
    more = ", …" if len(classes) > MAX_NAMED else ""
    word = "class" if len(classes) == 1 else "classes"
    return f"{word.capitalize() if begins else word} {named}{more}"


def _occur(classes: Sequence[int] | np.ndarray) -> str:
    return "occurs" if len(classes) == 1 else "occur"
