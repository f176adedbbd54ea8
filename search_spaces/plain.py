"""Converts scalars of NumPy and of tensor libraries to Python's own, so that they can be stored as JSON."""

from __future__ import annotations

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
    if _is_scalar(value):
        found = value.item() if hasattr(value, "item") else value.numpy().item()
        # A long double's own item is a long double.
        return float(found) if type(found) is kind and hasattr(found, "__float__") else found
    return value


def _is_scalar(value: Any) -> bool:
    return hasattr(value, "dtype") and getattr(value, "shape", None) == () and hasattr(value, "__array__")
