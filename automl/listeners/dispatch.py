"""Sends events to several listeners, and keeps their exceptions from the search."""

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
    """Combines several listeners into one. An exception of one is logged, and the others still receive the event.

    Args:
        folder: the working folder of the listeners, since a search may run in another one; None for that of the search.

    Raises:
        TypeError: one is not a `SearchListener`.
    """

    def __init__(self, listeners: Sequence[SearchListener] = (), *, folder: str | None = None) -> None:
        for listener in listeners:
            if not isinstance(listener, SearchListener):
                raise TypeError(f"A listener must be an instance of a subclass of SearchListener, got {listener!r}.")
        self._listeners = tuple(listeners)
        self._folder = folder
        self._logged: set[tuple[int, str]] = set()

    def handles(self, method: str) -> bool:
        """Whether a listener overrides this method. Events that no listener handles are not read from the store."""
        return any(
            listener.handles(method)
            if isinstance(listener, Listeners)
            else getattr(type(listener), method) is not getattr(SearchListener, method)
            for listener in self._listeners
        )

    def search_started(self, event: SearchStarted) -> None:
        self._send("search_started", event)

    def batch_proposed(self, event: BatchProposed) -> None:
        self._send("batch_proposed", event)

    def child_started(self, event: ChildStarted) -> None:
        self._send("child_started", event)

    def measured(self, event: Measured) -> None:
        self._send("measured", event)

    def child_ended(self, event: ChildEnded) -> None:
        self._send("child_ended", event)

    def step_learned(self, event: StepLearned) -> None:
        self._send("step_learned", event)

    def turn_ended(self, event: TurnEnded) -> None:
        self._send("turn_ended", event)

    def segment_ended(self, event: SegmentEnded) -> None:
        self._send("segment_ended", event)

    def _send(self, method: str, event: object) -> None:
        if not self.handles(method):
            return
        for index, listener in enumerate(self._listeners):
            try:
                with contextlib.nullcontext() if self._folder is None else working_in(self._folder):
                    getattr(listener, method)(event)
            except Exception as error:
                if (index, method) not in self._logged:
                    self._logged.add((index, method))
                    logger.warning(
                        "The listener %s raised in %s, and the search goes on (%s: %s). Further errors of this method "
                        "are not shown.",
                        type(listener).__name__,
                        method,
                        type(error).__name__,
                        error,
                        exc_info=error,
                    )
