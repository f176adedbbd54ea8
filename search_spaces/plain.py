"""Converts scalars of NumPy and of tensor libraries to Python's own, so that they can be stored as JSON."""

from __future__ import annotations

import math
from typing import Any

_PLAIN = (bool, int, float, str, type(None))


def plain(value: Any) -> Any:
    """The value with all scalars of NumPy, TensorFlow or PyTorch (zero-dimensional arrays too) as Python's own, also
    within lists, tuples and dicts. Other values are unchanged."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return kind(plain(item) for item in value)
    if kind is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    found = scalar(value)
    # A long double's own item is a long double.
    return float(found) if found is not value and type(found) is kind and hasattr(found, "__float__") else found


def scalar(value: Any) -> Any:
    """The Python value of a zero-dimensional array or a scalar of TensorFlow, PyTorch or JAX; any other value
    unchanged. An array of one element is not a scalar: NumPy deprecates that conversion."""
    if type(value) in _PLAIN:  # not a subclass, such as NumPy's double
        return value
    try:
        if tuple(value.shape) != ():
            return value
    except (AttributeError, TypeError, ValueError):  # not an array; TensorFlow raises ValueError for an unknown shape
        return value
    import numpy as np  # only now: `import automl` must stay cheap

    if np.ma.is_masked(value):
        return math.nan  # `item` would return the number under the mask
    if callable(getattr(value, "item", None)):
        return value.item()
    return np.asarray(value.numpy()).item() if callable(getattr(value, "numpy", None)) else value
