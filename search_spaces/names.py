"""Checks a name against the known names. The error about an unknown name lists them, nearest first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class UnknownNameError(ValueError):
    """A name is not a known name.

    Attributes:
        what: what the name stands for, for example `space` or `task option`.
        name: the unknown name.
    """

    def __init__(self, what: str, name: str, names: Sequence[str]) -> None:
        super().__init__(f"There is no {what} called {name!r}; there is {nearest_first(name, names) or 'none'}.")
        self.what = what
        self.name = name


def validate_choice(what: str, name: str, names: Iterable[str]) -> str:
    """The name itself. Raises UnknownNameError with the known names, nearest first."""
    known = list(names)
    if name not in known:
        raise UnknownNameError(what, name, known)
    return name


def nearest_first(name: str, known: Sequence[str], most: int = 8) -> str:
    """The known names in one string, nearest to `name` first, at most `most` of them.

    Case, dashes and spaces only break ties.
    """

    def distances(other: str) -> tuple[float, float]:
        pairs = ((_bare(name), _bare(other)), (name, other))
        bare, exact = (-difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return bare, exact

    ranked = sorted(known, key=distances)
    shown = ", ".join(ranked[:most])
    return shown if len(ranked) <= most else f"{shown} and {len(ranked) - most} more"


def _bare(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).casefold()
