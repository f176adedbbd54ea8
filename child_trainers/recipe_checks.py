"""Checks of the constants of a recipe. Each raises ValueError; the message says what values a constant may have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def check_counts(recipe: Any, names: Iterable[str], *, null: str = "") -> None:
    """Checks for whole numbers above 0. If `null` is not empty, a constant may be None, and `null` is its meaning."""
    for name in names:
        value = getattr(recipe, name)
        if not (is_count(value) or (null and value is None)):
            or_null = f", or null for {null}" if null else ""
            raise ValueError(f"task.{name} is {value!r}; it must be a whole number above 0{or_null}.")


def check_positive(recipe: Any, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(recipe, name)
        if not (is_number(value) and value > 0):
            raise ValueError(f"task.{name} is {value!r}; it must be a number above 0.")


def check_fractions(recipe: Any, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(recipe, name)
        if not (is_number(value) and 0 <= value < 1):
            raise ValueError(f"task.{name} is {value!r}; it must be a number in [0, 1).")


def check_switches(recipe: Any, names: Iterable[str]) -> None:
    for name in names:
        if not isinstance(getattr(recipe, name), bool):
            raise ValueError(f"task.{name} is {getattr(recipe, name)!r}; it must be true or false.")


def check_name(recipe: Any, name: str, names: Iterable[str]) -> None:
    if getattr(recipe, name) not in names:
        raise ValueError(f"task.{name} is {getattr(recipe, name)!r}; it is one of {', '.join(names)}.")


def is_count(value: Any) -> bool:
    return type(value) is int and value > 0  # True is an int too, and a JSON value can be one


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
