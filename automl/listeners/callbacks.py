"""Listeners of the Python API: a function for every child that has ended, and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from automl.db.records import Child
from automl.listeners.base import ChildEnded, SearchListener, TurnEnded


class OnChildEnd(SearchListener):
    """Calls a function with every child that has ended."""

    def __init__(self, function: Callable[[Child], None]) -> None:
        self._function = function

    def child_ended(self, event: ChildEnded) -> None:
        self._function(event.child)


class Warnings(SearchListener):
    """Issues a Python warning for each way in which the run differs from what the user asked for."""

    def __init__(self) -> None:
        self._issued = 0

    def turn_ended(self, event: TurnEnded) -> None:
        while self._issued < len(event.warnings):
            self._issued += 1
            warnings.warn(event.warnings[self._issued - 1], stacklevel=2)
