"""Reads arrays of numbers from a pickle without running its code. The only module that uses pickle.

The official Python files of CIFAR-10 are pickles, and a pickle is a program. Here it may refer to only three names, and
these are stand-ins that only store their arguments: with a forged dtype, the real `numpy.dtype` can make numpy follow
pointers that the file chooses.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from automl.child_trainers.data.dataset import DataError

NUMBER_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
BYTE_ORDERS = ("|", "<", ">", "=")


def unpickle_arrays(content: bytes, name: str) -> dict[Any, Any]:
    """The dict in a pickle, with its arrays of numbers as read-only numpy arrays.

    Strings written by Python 2 stay bytes, including keys. Only values of the dict become arrays, not values in nested
    objects.

    Args:
        content: the content of the file.
        name: the name of the file, for messages.

    Raises:
        DataError: the pickle is damaged, is not a dict, or has values other than arrays of numbers, lists, numbers and
            strings.
    """
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise almost any exception
        raise DataError(f"{name} is not a pickle of numpy arrays: {str(error) or type(error).__name__}") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{name} is not a pickle of numpy arrays: expected a dict, found {type(loaded).__name__}")
    return {key: value.numbers if isinstance(value, _Array) else value for key, value in loaded.items()}


class _Dtype:
    """Stands in for `numpy.dtype`: stores the code of the type and the byte order, and ignores the rest."""

    def __init__(self, code: str | bytes, align: bool = False, copy: bool = False) -> None:
        self.code = _as_text(code)
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = _as_text(state[1])

    def to_numpy(self) -> np.dtype:
        if self.code not in NUMBER_CODES or self.byte_order not in BYTE_ORDERS:
            raise pickle.UnpicklingError(f"it holds an array of type {self.code!r}, which is not a type of numbers")
        return np.dtype(self.byte_order + self.code)


class _Array:
    """Stands in for `numpy.ndarray`: makes an array after a check that the number of bytes fits the shape."""

    numbers: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        numpy_dtype = dtype.to_numpy()
        # math.prod is exact; numpy's product of a forged shape could overflow.
        if len(content) != math.prod(shape) * numpy_dtype.itemsize:
            raise pickle.UnpicklingError(f"it holds an array of shape {shape} in {len(content)} bytes")
        numbers = np.frombuffer(content, numpy_dtype)
        self.numbers = numbers.reshape(shape, order="F" if column_major else "C")


def _reconstruct(subtype: type[_Array], shape: tuple[int, ...], code: bytes) -> _Array:
    """Stands in for the function with which a pickled array begins; shape and type follow as the array's state."""
    return _Array()


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # in the official files, which numpy 1 wrote
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # the same function in numpy 2
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


# The Python implementation of the unpickler, because it stores its memo in a dict. The C implementation allocates an
# array up to the highest memo index, so a single wrong byte made it allocate 2.7 GB. Both take 30 ms for these files.
class _ArrayUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Called by pickle for every name in the file. It imports nothing."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which was not loaded")
        return _ADMITTED[module, name]


def _as_text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
