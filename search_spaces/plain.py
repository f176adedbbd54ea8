"""Converts scalars of NumPy and of tensor libraries to Python scalars, so that JSON can store them."""

from __future__ import annotations

import math
from typing import Any

_PLAIN = (bool, int, float, str, type(None))


def is_plain(value: Any) -> bool:
    """Whether a value is a Python scalar."""
    return type(value) in _PLAIN


def plain(value: Any) -> Any:
    """The value with all scalars of NumPy, TensorFlow, PyTorch or JAX (also zero-dimensional arrays) converted to
    Python scalars, also within lists, tuples and dicts. Other values are unchanged."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return kind(plain(item) for item in value)
    if kind is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    converted = scalar(value)
    if converted is not value and type(converted) is kind and hasattr(converted, "__float__"):
        return float(converted)  # `item` of a NumPy long double returns a long double
    return converted


def scalar(value: Any) -> Any:
    """The Python value of a zero-dimensional array or a scalar of TensorFlow, PyTorch or JAX; any other value
    unchanged. An array of one element is not a scalar: NumPy deprecates that conversion."""
    if type(value) in _PLAIN:  # not isinstance: NumPy's double is a subclass of float
        return value
    try:
        if tuple(value.shape) != ():
            return value
    except (AttributeError, TypeError, ValueError):  # not an array; TensorFlow raises ValueError for an unknown shape
        return value
    import numpy as np  # here, because `import automl` must stay fast

    if np.ma.is_masked(value):
        return math.nan  # `item` would return the number under the mask
    if callable(getattr(value, "item", None)):
        return value.item()
    return np.asarray(value.numpy()).item() if callable(getattr(value, "numpy", None)) else value
