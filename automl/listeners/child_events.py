"""What has happened to children since the last look, read from the store in time that does not grow with the search."""

from __future__ import annotations

from automl.db.records import Child
from automl.db.store import Store
from automl.listeners.base import ChildEnded, ChildStarted, Measured
from automl.listeners.dispatch import Listeners

# Seconds that each look goes back before the last one. In PostgreSQL a child's end may become visible a moment after
# that of another whose time is later.
OVERLAP = 0.25


class ChildEvents:
    """Tells listeners which children have started, measured and ended, from the moment that this object is made.

    A look costs as much as children run and have ended since the last one. Nothing is read for events that nobody
    hears.
    """

    def __init__(self, store: Store, search_id: int, listeners: Listeners) -> None:
        self._store = store
        self._search_id = search_id
        self._listeners = listeners
        self._hears_measured = listeners.hears("measured")
        self._hears = self._hears_measured or listeners.hears("child_started") or listeners.hears("child_ended")
        self._started: set[tuple[int, int]] = set()  # (number, fence) of the attempts that run, as far as told
        self._epochs: dict[tuple[int, int], int] = {}  # the last epoch that was told of each of them
        self._ended: dict[tuple[int, int], float] = {}  # the latest that were told, and when they ended
        self._looked = 0.0  # by the database's clock
        if self._hears:
            self._looked = store.now()
            for ending in store.ended(search_id, since=self._looked - OVERLAP):
                self._ended[ending.number, ending.fence] = ending.finished

    def look(self) -> None:
        """Tells what is new."""
        if not self._hears:
            return
        now = self._store.now()
        since = min(self._looked, now) - OVERLAP  # the clock may have been set back
        running = self._store.running(self._search_id)
        # What ends between the two reads is told by the next look at the latest.
        ended = [
            ending
            for ending in self._store.ended(self._search_id, since=since)
            if (ending.number, ending.fence) not in self._ended
        ]
        for attempt in running:
            if (attempt.number, attempt.fence) not in self._started:
                self._tell_started(attempt.number, attempt.fence, attempt.device, attempt.slot)
            self._tell_measured(attempt.number, attempt.fence, attempt.child_id)
        for ending in ended:
            key = (ending.number, ending.fence)
            child = self._child(ending.number)
            if key not in self._started:
                for made in self._store.attempts(child.id):
                    if made.fence == ending.fence:
                        self._listeners.child_started(ChildStarted(child, made.device, made.slot))
            self._tell_measured(ending.number, ending.fence, child.id)
            self._listeners.child_ended(ChildEnded(child))
            self._ended[key] = ending.finished
        self._forget(since, {(attempt.number, attempt.fence) for attempt in running})
        self._looked = now

    def _tell_started(self, number: int, fence: int, device: str, slot: int | None) -> None:
        self._started.add((number, fence))
        if self._listeners.hears("child_started"):
            self._listeners.child_started(ChildStarted(self._child(number), device, slot))

    def _tell_measured(self, number: int, fence: int, child_id: int) -> None:
        if not self._hears_measured:
            return
        last = self._epochs.get((number, fence), -1)
        for row in self._store.measurements_after(child_id, fence, epoch=last):
            self._epochs[number, fence] = row.epoch
            self._listeners.measured(Measured(number, row.epoch, row.metrics, row.at))

    def _forget(self, since: float, running: set[tuple[int, int]]) -> None:
        """Drops what no later look can ask for."""
        self._started &= running
        self._epochs = {key: epoch for key, epoch in self._epochs.items() if key in running}
        self._ended = {key: finished for key, finished in self._ended.items() if finished >= since - OVERLAP}

    def _child(self, number: int) -> Child:
        (child,) = self._store.children(self._search_id, number=number)
        return child
