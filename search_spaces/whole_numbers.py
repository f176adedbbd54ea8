"""The check of an option that is a whole number."""

from __future__ import annotations

from typing import Any


def check_whole_number(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """The value itself, of the option `name`. Raises ValueError if it is not a whole number from `least` to `most`."""
    # True is an int too.
    if type(value) is not int or value < least or (most is not None and value > most):
        numbers = f", {least} or more" if most is None else f" from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; it must be a whole number{numbers}.")
    return value
