"""The user's own images, from a file made with `numpy.savez`."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from automl.child_trainers.data.dataset import DataError, ImageData, split, stratified_order, stratified_split

PARTS = ("train", "validation", "test")
KEYS = tuple(f"{axis}_{part}" for part in PARTS for axis in "xy")


def load_npz(path: Path, *, stratified: bool = True) -> ImageData:
    """Reads x_train and y_train, and if present x_validation, y_validation, x_test and y_test.

    Images are (count, height, width, channels), or (count, height, width) with a single channel. They become uint8 if
    all values are integers from 0 to 255, otherwise float32. Labels are integers from 0, (count,) or (count, 1).
    Without a validation set, a tenth of the training images is held out, always the same images.

    Args:
        stratified: whether to hold out a stratified validation set, and to put training and validation images in a
            fixed random order of which every prefix is stratified. Otherwise, as in automl 0.1.0, a file with a
            validation set keeps its order, and the held-out images are drawn without regard to classes.

    Raises:
        DataError: the file cannot be read, or an array does not have this form.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    x = {part: _images(path, f"x_{part}", arrays[f"x_{part}"]) for part in PARTS if f"x_{part}" in arrays}
    y = {part: _labels(path, f"y_{part}", arrays[f"y_{part}"]) for part in PARTS if f"y_{part}" in arrays}
    _check_agreement(path, x, y)
    x = _common_dtype(path, x)
    if "validation" not in x:
        num_validation = max(1, len(x["train"]) // 10)
        divide = stratified_split if stratified else split
        x["train"], y["train"], x["validation"], y["validation"] = divide(
            x["train"], y["train"], num_validation, seed=0
        )
    elif stratified:
        for part in ("train", "validation"):
            order = stratified_order(y[part], seed=0)
            x[part], y[part] = x[part][order], y[part][order]
    return ImageData(
        name=path.stem,
        x_train=x["train"],
        y_train=y["train"],
        x_validation=x["validation"],
        y_validation=y["validation"],
        x_test=x.get("test"),
        y_test=y.get("test"),
        num_classes=1 + max(int(labels.max()) for labels in y.values()),
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not os.path.isfile(path):  # unlike Path.is_file, False also if access to the folder is denied
        raise DataError(f"{path} is not a file; expected one made with numpy.savez.")
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is not a valid .npz file (a zip archive made with numpy.savez).")
        with np.load(path, allow_pickle=False) as archive:
            _check_keys(path, set(archive.files))
            return {key: _read_array(path, key, archive) for key in KEYS if key in archive.files}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _check_keys(path: Path, found: set[str]) -> None:
    for part in PARTS:
        pair = {f"x_{part}", f"y_{part}"}
        missing = pair - found
        if missing and (part == "train" or missing != pair):
            raise DataError(f"{path} lacks {min(missing)}; it holds {', '.join(sorted(found)) or 'nothing'}.")
    # Other names are allowed, but an array such as x_val is a validation set that would not be used.
    unknown = {key for key in found if key.startswith(("x_", "y_"))} - set(KEYS)
    if unknown:
        raise DataError(f"{path} holds {min(unknown)}, which is not one of {', '.join(KEYS)}; rename or remove it.")


def _read_array(path: Path, key: str, archive: np.lib.npyio.NpzFile) -> np.ndarray:
    try:
        array = archive[key]
    except Exception as error:  # a damaged member may raise any exception of zipfile, zlib or numpy
        raise DataError(f"{key} in {path} cannot be read as an array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):  # numpy returns a member that is not an array as bytes
        raise DataError(f"{key} in {path} cannot be read as an array of numbers: it is not in numpy's format.")
    return array


def _images(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    if x.ndim not in (3, 4) or x.dtype.kind not in "biuf":
        raise DataError(
            f"{key} in {path} must hold numbers in shape (count, height, width, channels), "
            f"found {x.dtype} of shape {x.shape}."
        )
    if x.size == 0:
        raise DataError(f"{key} in {path} is empty: its shape is {x.shape}.")
    return x[..., np.newaxis] if x.ndim == 3 else x


def _labels(path: Path, key: str, y: np.ndarray) -> np.ndarray:
    column = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if column.ndim != 1 or column.dtype.kind not in "iu":
        raise DataError(f"{key} in {path} must hold integers in shape (count,), found {y.dtype} of shape {y.shape}.")
    if column.size == 0:
        raise DataError(f"{key} in {path} is empty: its shape is {y.shape}.")
    if column.min() < 0 or column.max() > np.iinfo(np.int32).max:
        raise DataError(
            f"{key} in {path} must hold labels that count classes from 0, found {column.min()} to {column.max()}."
        )
    return column.astype(np.int32)


def _check_agreement(path: Path, x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> None:
    for part in x:
        if len(x[part]) != len(y[part]):
            raise DataError(
                f"x_{part} and y_{part} in {path} must have the same length, found {len(x[part])} images "
                f"and {len(y[part])} labels."
            )
        if x[part].shape[1:] != x["train"].shape[1:]:
            raise DataError(
                f"x_{part} in {path} must hold images of shape {x['train'].shape[1:]} as x_train does, "
                f"found {x[part].shape[1:]}."
            )
        # The network has one output per class; a label of a million is a mistake, or an identifier.
        if y[part].max() >= len(y["train"]):
            raise DataError(
                f"y_{part} in {path} must hold labels that count classes from 0, found {y[part].max()} "
                f"where there are only {len(y['train'])} training images."
            )
    if len(y["train"]) < 2 or y["train"].min() == y["train"].max():
        raise DataError(f"y_train in {path} must hold at least 2 different labels, found only {y['train'].min()}.")


def _common_dtype(path: Path, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts all parts to uint8 if no part loses information, otherwise all to float32."""
    if all(images.dtype.kind in "biu" and images.min() >= 0 and images.max() <= 255 for images in x.values()):
        return {part: images.astype(np.uint8) for part, images in x.items()}
    converted = {}
    for part, images in x.items():
        with np.errstate(over="ignore"):  # overflows are reported below
            converted[part] = images.astype(np.float32)
        broken = np.flatnonzero(~np.isfinite(converted[part]).all(axis=(1, 2, 3)))
        if broken.size:
            raise DataError(
                f"x_{part} in {path} must hold finite float32 values, found NaN or infinity in "
                f"{len(broken)} of {len(images)} images, first in image {broken[0]}."
            )
    return converted
