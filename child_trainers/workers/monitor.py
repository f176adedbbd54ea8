"""Decides when a worker must be ended: it stalls, its child takes too long, or it uses too much memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from automl.db.records import Child, Fault

MEMORY_SECONDS = 1.0  # seconds between two measurements of memory


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """The limits beyond which a worker is ended.

    Attributes:
        stall: seconds without a training step, or from the start until the worker is ready.
        timeout: seconds that a child may take; None for no limit.
        memory: bytes that a worker and the processes that it started may use; None for no limit.
    """

    stall: float
    timeout: float | None = None
    memory: int | None = None


@dataclasses.dataclass(frozen=True)
class Overdue:
    """The reason why a worker must be ended, and the fault of its child."""

    fault: Fault
    reason: str


class MeasuredWorker(Protocol):
    """A worker whose memory can be measured."""

    def resident_bytes(self, *, shared_once: bool = False) -> int:
        """Memory in bytes of the worker and the processes that it started; 0 if it is not known.

        Args:
            shared_once: whether memory that several processes share counts once instead of once per process. This
                takes longer.
        """


class WorkerMonitor:
    """Monitors one worker from its start to its end. A pool makes a monitor for every worker that it starts.

    The pool calls `ready` and `delivered` when the worker sends these messages. It regularly calls `overdue` with the
    store's records of the children that the worker runs. `now` is the time in seconds of any monotonic clock.
    """

    def __init__(self, deadlines: Deadlines, now: float) -> None:
        self._deadlines = deadlines
        self._ready = False
        self._child: int | None = None  # the first of the children that it runs, until it has delivered them
        self._population = 1  # the number of these children; the timeout is multiplied by it
        self._child_since = now
        self._progress = -1
        self._progress_since = now
        self._memory_measured = now

    @property
    def is_ready(self) -> bool:
        """Whether the worker has sent that it is ready for children."""
        return self._ready

    def ready(self, now: float) -> None:
        """Records that the worker is ready for its first child."""
        self._ready, self._progress_since = True, now

    def delivered(self, now: float) -> None:
        """Records that the worker has delivered the children that it ran."""
        self.ready(now)
        self._child = None

    def overdue(self, now: float, worker: MeasuredWorker, children: Sequence[Child]) -> Overdue | None:
        """The reason why the worker must be ended, or None.

        Args:
            children: the store's records of the children that run in this worker.
        """
        return self._memory_exceeded(now, worker) or self._too_late(now, children)

    def _memory_exceeded(self, now: float, worker: MeasuredWorker) -> Overdue | None:
        limit = self._deadlines.memory
        if limit is None or now - self._memory_measured < MEMORY_SECONDS:
            return None
        self._memory_measured = now
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
                return None  # the worker waits for a child
            # The claim of the child was lost, but the worker is still in the call that trains it.
            return Overdue(Fault.TIMEOUT, f"it did not come back from child {self._child} (--stall)")
        child = children[0]
        if self._child != child.number:
            self._child, self._child_since, self._progress = child.number, now, -1
            self._population = len(children)
        if self._progress != child.progress:
            self._progress, self._progress_since = child.progress, now
        if timeout is not None and now - self._child_since > self._population * timeout:
            return Overdue(Fault.TIMEOUT, f"it took more than {self._population * timeout:g} s (--child-timeout)")
        if now - self._progress_since > stall:
            return Overdue(Fault.TIMEOUT, f"it made no step for {stall:g} s (--stall)")
        return None
