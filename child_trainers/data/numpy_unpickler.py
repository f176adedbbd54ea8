"""Reads arrays of numbers out of a pickle without running what else it may hold. The one place that uses pickle.

The official Python files of CIFAR-10 are pickles, and a pickle is a program. Here it may name three things only, and
even those are stand-ins that write down what they are told: a made-up dtype given to the real `numpy.dtype` can make
numpy follow pointers of the file's choosing.
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
    """The dict that a pickle holds, its arrays of numbers as read-only numpy arrays.

    Strings written by Python 2 stay bytes, keys among them. Arrays are looked for among the dict's values, not deeper.

    Args:
        content: the whole file.
        name: of the file, for messages.

    Raises:
        DataError: the pickle is damaged, is no dict, or asks for anything but arrays of numbers, lists, numbers and
            strings.
    """
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly any exception: it is a program that goes wrong
        raise DataError(f"{name} is not a pickle of numpy arrays: {str(error) or type(error).__name__}") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{name} is not a pickle of numpy arrays: expected a dict, found {type(loaded).__name__}")
    return {key: value.numbers if isinstance(value, _Array) else value for key, value in loaded.items()}


class _Dtype:
    """Stands in for `numpy.dtype`: keeps the code of the type and the byte order, ignores the rest."""

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
    """Stands in for `numpy.ndarray`: becomes an array once its bytes are known to fit its shape."""

    numbers: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        numpy_dtype = dtype.to_numpy()
        # math.prod is exact where numpy's own product of a made-up shape could wrap around.
        if len(content) != math.prod(shape) * numpy_dtype.itemsize:
            raise pickle.UnpicklingError(f"it holds an array of shape {shape} in {len(content)} bytes")
        numbers = np.frombuffer(content, numpy_dtype)
        self.numbers = numbers.reshape(shape, order="F" if column_major else "C")


def _reconstruct(subtype: type[_Array], shape: tuple[int, ...], code: bytes) -> _Array:
    """Stands in for the function by which numpy begins a pickled array; shape and type follow as the array's state."""
    return _Array()


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # as in the official files, written by numpy 1
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # where numpy 2 has it
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


# The unpickler written in Python, for it remembers objects in a dict: the one in C makes room for as many as the index
# that a file names, so that a single wrong byte cost 2.7 GB. On these files both take 30 ms.
class _ArrayUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Called by pickle for everything that a file names; nothing is imported here."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which was not loaded")
        return _ADMITTED[module, name]


def _as_text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
