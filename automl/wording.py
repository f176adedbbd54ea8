"""Numbers as people write them."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun: `1 child`, `2 children`; the noun's plural ends in s unless `many` says it."""
    return f"{number} {one if number == 1 else many or one + 's'}"
