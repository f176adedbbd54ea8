"""Labelled images in memory: training, validation and optionally test images."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np


class DataError(ValueError):
    """The data are missing, damaged or in a wrong format. The message names the file or array."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageData:
    """Images with one label each.

    Attributes:
        name: the name of the data set in reports.
        x_train, x_validation, x_test: uint8 or float32 (count, height, width, channels), all with the same dtype
            and image shape. Training and validation images are already shuffled. Without a test set, `x_test` and
            `y_test` are None.
        y_train, y_validation, y_test: int32 (count,), class indices in [0, num_classes).
        num_classes: number of classes, at least 2.

    Raises:
        DataError: an array violates one of these rules.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise DataError(f"{self.name} needs at least 2 classes, got num_classes={self.num_classes}.")
        if (self.x_test is None) != (self.y_test is None):
            raise DataError(f"{self.name} has only one of x_test and y_test; give both or neither.")
        for part, x, y in self._parts():
            self._check(part, x, y)

    def _parts(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        parts = [("train", self.x_train, self.y_train), ("validation", self.x_validation, self.y_validation)]
        if self.x_test is not None and self.y_test is not None:
            parts.append(("test", self.x_test, self.y_test))
        return parts

    def _check(self, part: str, x: np.ndarray, y: np.ndarray) -> None:
        if x.ndim != 4 or x.dtype not in (np.uint8, np.float32):
            raise DataError(
                f"x_{part} of {self.name} must be uint8 or float32 of shape (count, height, width, channels), "
                f"found {x.dtype} of shape {x.shape}."
            )
        if x.size == 0:
            raise DataError(f"x_{part} of {self.name} is empty: its shape is {x.shape}.")
        if x.dtype != self.x_train.dtype or x.shape[1:] != self.x_train.shape[1:]:
            raise DataError(
                f"x_{part} of {self.name} holds {x.dtype} images of shape {x.shape[1:]}, "
                f"but x_train holds {self.x_train.dtype} images of shape {self.x_train.shape[1:]}."
            )
        if y.dtype != np.int32 or y.shape != x.shape[:1]:
            raise DataError(
                f"y_{part} of {self.name} must be int32 of shape {x.shape[:1]}, one label for each image, "
                f"found {y.dtype} of shape {y.shape}."
            )
        if y.min() < 0 or y.max() >= self.num_classes:
            raise DataError(
                f"y_{part} of {self.name} must lie between 0 and {self.num_classes - 1}, "
                f"found labels from {y.min()} to {y.max()}."
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height and width in pixels, and the number of channels."""
        _, height, width, channels = self.x_train.shape
        return height, width, channels

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over dtype, shape and bytes of all arrays. It does not depend on the name.

        Computed on first use, because hashing CIFAR-10 takes 0.1 s or more.
        """
        digest = hashlib.sha256()
        for part, x, y in self._parts():
            for key, array in ((f"x_{part}", x), (f"y_{part}", y)):
                digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def limit(self, num_train: int, num_validation: int | None = None, *, last: bool = False) -> ImageData:
        """Returns the data with `num_train` training and `num_validation` (None: all) validation images.

        Training and validation images are already shuffled, so the first images are a random sample. The test set is
        not limited.

        Args:
            last: whether to take the last training images instead of the first.

        Raises:
            DataError: a number is below 1 or above the number of images.
        """
        if num_validation is None:
            num_validation = len(self.x_validation)
        for part, wanted, found in (
            ("training", num_train, len(self.x_train)),
            ("validation", num_validation, len(self.x_validation)),
        ):
            if not 1 <= wanted <= found:
                raise DataError(f"{self.name} has {found} {part} images, so it cannot be limited to {wanted}.")
        chosen = slice(len(self.x_train) - num_train, None) if last else slice(num_train)
        return dataclasses.replace(
            self,
            x_train=self.x_train[chosen],
            y_train=self.y_train[chosen],
            x_validation=self.x_validation[:num_validation],
            y_validation=self.y_validation[:num_validation],
        )


def shuffled_indices(count: int, seed: int) -> np.ndarray:
    """A permutation of 0 to count - 1 that depends only on its arguments.

    NumPy guarantees that the raw stream of a bit generator never changes, but not the result of
    `Generator.permutation`. A split must be equal under all NumPy versions, because an export may be checked against
    the validation images years later. So the images are sorted by raw 64-bit numbers. The permutation is uniform except
    for ties, whose probability for 60,000 images is 1e-10.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random permutation of which every prefix is stratified, up to rounding. One image of each class comes first,
    then the images of each class are spread evenly.

    Args:
        labels: int (count,).
    """
    shuffled = shuffled_indices(len(labels), seed)
    drawn = labels[shuffled]
    by_class = np.argsort(drawn, kind="stable")
    classes, counts = np.unique(drawn, return_counts=True)
    rank = np.empty(len(labels), np.int64)  # of each image within its class
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    positions = (rank + 0.5) / counts[np.searchsorted(classes, drawn)]  # in (0, 1), within the class
    positions[rank == 0] = 0.0
    return shuffled[np.argsort(positions, kind="stable")]


def stratified_split(
    x: np.ndarray, y: np.ndarray, num_validation: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Like `split`, but stratified by class. The only image of a class is a training image. Both parts are in a
    stratified order."""
    _check_split(x, y, num_validation)
    order = stratified_order(y, seed)
    kept = order[: len(np.unique(y))]  # one of each class
    rest = order[len(kept) :]
    rest = rest[stratified_order(y[rest], seed + 1)]
    pool = np.concatenate([rest, kept])
    validation, train = pool[:num_validation], pool[num_validation:]
    train = train[stratified_order(y[train], seed)]
    return x[train], y[train], x[validation], y[validation]


def split(
    x: np.ndarray, y: np.ndarray, num_validation: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Holds out `num_validation` random images for validation. Both parts are shuffled.

    Args:
        x: (count, ...).
        y: (count, ...).
        num_validation: images to hold out.
        seed: of the permutation; the global generator is not used.

    Returns:
        x_train, y_train, x_validation, y_validation, all copies.

    Raises:
        DataError: x and y have different lengths, or one part would be empty.
    """
    _check_split(x, y, num_validation)
    order = shuffled_indices(len(x), seed)
    validation, train = order[:num_validation], order[num_validation:]
    return x[train], y[train], x[validation], y[validation]


def _check_split(x: np.ndarray, y: np.ndarray, num_validation: int) -> None:
    if len(x) != len(y):
        raise DataError(f"There are {len(x)} images but {len(y)} labels.")
    if not 1 <= num_validation < len(x):
        raise DataError(
            f"Cannot hold out {num_validation} of {len(x)} images for validation: both parts need at least one."
        )
