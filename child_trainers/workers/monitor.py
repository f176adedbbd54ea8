"""When a worker must be ended: it stalls, its child takes too long, or it holds too much memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from automl.db.records import Child, Fault

MEMORY_SECONDS = 1.0  # between two looks at memory


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """When a worker is ended.

    Attributes:
        stall: seconds without a step, or without being ready.
        timeout: seconds that a child may take, or None.
        memory: bytes that a worker and what it started may hold, or None.
    """

    stall: float
    timeout: float | None = None
    memory: int | None = None


@dataclasses.dataclass(frozen=True)
class Overdue:
    """Why a worker must be ended, and the fault that its child is charged with."""

    fault: Fault
    reason: str


class MeasuredWorker(Protocol):
    """A worker whose memory can be told."""

    def resident_bytes(self, *, shared_once: bool = False) -> int:
        """Memory that it and what it started hold; 0 where that cannot be told.

        Args:
            shared_once: what several processes share counts once, not for each. Takes longer to tell.
        """


class WorkerMonitor:
    """Follows one worker from its start to its end. A pool makes one for every worker that it starts.

    The pool tells it the worker's news (`ready`, `delivered`), and regularly asks `overdue` with what the store knows
    of the children that the worker runs. Time is always an argument: seconds of any clock that never goes back.
    """

    def __init__(self, deadlines: Deadlines, now: float) -> None:
        self._deadlines = deadlines
        self._ready = False
        self._child: int | None = None  # the first of the children that it runs, until it says that they are over
        self._company = 1  # how many there are: together they may take as long as one after the other
        self._child_since = now
        self._progress = -1
        self._progress_since = now
        self._memory_looked = now

    @property
    def is_ready(self) -> bool:
        """Whether the worker has said that it is ready for children."""
        return self._ready

    def ready(self, now: float) -> None:
        """The worker is ready for its first child."""
        self._ready, self._progress_since = True, now

    def delivered(self, now: float) -> None:
        """The worker has delivered the children that it ran."""
        self.ready(now)
        self._child = None

    def overdue(self, now: float, worker: MeasuredWorker, children: Sequence[Child]) -> Overdue | None:
        """Why the worker must be ended, or None.

        Args:
            children: those that run in this worker, with their progress, as the store has them.
        """
        return self._memory_exceeded(now, worker) or self._too_late(now, children)

    def _memory_exceeded(self, now: float, worker: MeasuredWorker) -> Overdue | None:
        limit = self._deadlines.memory
        if limit is None or now - self._memory_looked < MEMORY_SECONDS:
            return None
        self._memory_looked = now
        held = worker.resident_bytes()
        if held > limit:
            held = worker.resident_bytes(shared_once=True)
        if held <= limit:
            return None
        reason = f"its worker held {held / 2**30:.2f} GB where {limit / 2**30:.2f} are allowed (--worker-memory)"
        return Overdue(Fault.OOM, reason)

    def _too_late(self, now: float, children: Sequence[Child]) -> Overdue | None:
        stall, timeout = self._deadlines.stall, self._deadlines.timeout
        if not children:
            if now - self._progress_since <= stall:
                return None
            if not self._ready:
                return Overdue(Fault.TIMEOUT, f"it was not ready after {stall:g} s (--stall)")
            if self._child is None:
                return None  # it waits for a child
            # Its claim was lost, and it has not come back from the child since.
            return Overdue(Fault.TIMEOUT, f"it did not come back from child {self._child} (--stall)")
        child = children[0]
        if self._child != child.number:
            self._child, self._child_since, self._progress = child.number, now, -1
            self._company = len(children)
        if self._progress != child.progress:
            self._progress, self._progress_since = child.progress, now
        if timeout is not None and now - self._child_since > self._company * timeout:
            return Overdue(Fault.TIMEOUT, f"it took more than {self._company * timeout:g} s (--child-timeout)")
        if now - self._progress_since > stall:
            return Overdue(Fault.TIMEOUT, f"it made no step for {stall:g} s (--stall)")
        return None
