"""Tells several listeners what happened, and keeps their errors from the search."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from automl.listeners.base import (
    BatchProposed,
    ChildEnded,
    ChildStarted,
    Measured,
    SearchListener,
    SearchStarted,
    SegmentEnded,
    StepLearned,
    TurnEnded,
)
from automl.surroundings import working_in

logger = logging.getLogger(__name__)


class Listeners(SearchListener):
    """Several listeners as one. What one raises is logged, the others are told all the same.

    Args:
        folder: the working folder of the listeners, since a search may run in another one; None for that of the search.

    Raises:
        TypeError: one is no `SearchListener`.
    """

    def __init__(self, listeners: Sequence[SearchListener] = (), *, folder: str | None = None) -> None:
        for listener in listeners:
            if not isinstance(listener, SearchListener):
                raise TypeError(f"A listener must be an instance of a subclass of SearchListener, got {listener!r}.")
        self._listeners = tuple(listeners)
        self._folder = folder
        self._logged: set[tuple[int, str]] = set()

    def hears(self, method: str) -> bool:
        """Whether any of the listeners overrides this method: events that nobody hears are not read from the store."""
        return any(
            listener.hears(method)
            if isinstance(listener, Listeners)
            else getattr(type(listener), method) is not getattr(SearchListener, method)
            for listener in self._listeners
        )

    def search_started(self, event: SearchStarted) -> None:
        self._tell("search_started", event)

    def batch_proposed(self, event: BatchProposed) -> None:
        self._tell("batch_proposed", event)

    def child_started(self, event: ChildStarted) -> None:
        self._tell("child_started", event)

    def measured(self, event: Measured) -> None:
        self._tell("measured", event)

    def child_ended(self, event: ChildEnded) -> None:
        self._tell("child_ended", event)

    def step_learned(self, event: StepLearned) -> None:
        self._tell("step_learned", event)

    def turn_ended(self, event: TurnEnded) -> None:
        self._tell("turn_ended", event)

    def segment_ended(self, event: SegmentEnded) -> None:
        self._tell("segment_ended", event)

    def _tell(self, method: str, event: object) -> None:
        if not self.hears(method):
            return
        for place, listener in enumerate(self._listeners):
            try:
                with contextlib.nullcontext() if self._folder is None else working_in(self._folder):
                    getattr(listener, method)(event)
            except Exception as error:
                if (place, method) not in self._logged:
                    self._logged.add((place, method))
                    logger.warning(
                        "The listener %s raised in %s, and the search goes on (%s: %s). Further errors of this method "
                        "are not shown.",
                        type(listener).__name__,
                        method,
                        type(error).__name__,
                        error,
                        exc_info=error,
                    )
