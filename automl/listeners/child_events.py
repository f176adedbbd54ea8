"""Reads new events of children from the store, in time that does not grow with the search."""

from __future__ import annotations

from automl.db.records import Child
from automl.db.store import Store
from automl.listeners.base import ChildEnded, ChildStarted, Measured
from automl.listeners.dispatch import Listeners

# Each look goes back this many seconds before the last one. In PostgreSQL a child's end may become visible shortly
# after that of another child, although its time is earlier.
OVERLAP = 0.25


class ChildEvents:
    """Sends listeners the events of children that start, measure or end after this object is made.

    The cost of a look is proportional to the number of children that run or have ended since the last one. Events that
    no listener handles are not read.
    """

    def __init__(self, store: Store, search_id: int, listeners: Listeners) -> None:
        self._store = store
        self._search_id = search_id
        self._listeners = listeners
        self._handles_measured = listeners.handles("measured")
        self._handles_any = (
            self._handles_measured or listeners.handles("child_started") or listeners.handles("child_ended")
        )
        self._started: set[tuple[int, int]] = set()  # (number, fence) of running attempts whose start was sent
        self._epochs: dict[tuple[int, int], int] = {}  # the last epoch that was sent, by running attempt
        self._ended: dict[tuple[int, int], float] = {}  # when each attempt ended, for the latest ends that were sent
        self._looked_at = 0.0  # by the database's clock
        if self._handles_any:
            self._looked_at = store.now()
            for ending in store.ended(search_id, since=self._looked_at - OVERLAP):
                self._ended[ending.number, ending.fence] = ending.finished

    def look(self) -> None:
        """Sends what is new since the last look."""
        if not self._handles_any:
            return
        now = self._store.now()
        since = min(self._looked_at, now) - OVERLAP  # the clock may have been set back
        running = self._store.running(self._search_id)
        # An attempt that ends between the two reads is sent by the next look at the latest.
        ended = [
            ending
            for ending in self._store.ended(self._search_id, since=since)
            if (ending.number, ending.fence) not in self._ended
        ]
        for attempt in running:
            if (attempt.number, attempt.fence) not in self._started:
                self._send_started(attempt.number, attempt.fence, attempt.device, attempt.slot)
            self._send_measured(attempt.number, attempt.fence, attempt.child_id)
        for ending in ended:
            key = (ending.number, ending.fence)
            child = self._child(ending.number)
            if key not in self._started:
                for past in self._store.attempts(child.id):
                    if past.fence == ending.fence:
                        self._listeners.child_started(ChildStarted(child, past.device, past.slot))
            self._send_measured(ending.number, ending.fence, child.id)
            self._listeners.child_ended(ChildEnded(child))
            self._ended[key] = ending.finished
        self._forget(since, {(attempt.number, attempt.fence) for attempt in running})
        self._looked_at = now

    def _send_started(self, number: int, fence: int, device: str, slot: int | None) -> None:
        self._started.add((number, fence))
        if self._listeners.handles("child_started"):
            self._listeners.child_started(ChildStarted(self._child(number), device, slot))

    def _send_measured(self, number: int, fence: int, child_id: int) -> None:
        if not self._handles_measured:
            return
        last = self._epochs.get((number, fence), -1)
        for row in self._store.measurements_after(child_id, fence, epoch=last):
            self._epochs[number, fence] = row.epoch
            self._listeners.measured(Measured(number, row.epoch, row.metrics, row.at))

    def _forget(self, since: float, running: set[tuple[int, int]]) -> None:
        """Drops entries that no later look needs."""
        self._started &= running
        self._epochs = {key: epoch for key, epoch in self._epochs.items() if key in running}
        self._ended = {key: finished for key, finished in self._ended.items() if finished >= since - OVERLAP}

    def _child(self, number: int) -> Child:
        (child,) = self._store.children(self._search_id, number=number)
        return child
