"""Pools start, watch and end workers; the loop sees only the four verbs of `Pool`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import logging
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from child_trainers.devices import environment
from child_trainers.process import WorkerProcess
from child_trainers.worker import STORE_LOST_EXIT, Worker
from db.records import Fault, State
from db.store import Store

logger = logging.getLogger(__name__)
START_FAILURES = 3  # workers of one slot that may die before they are ready


class PoolError(Exception):
    """The pool cannot run workers; the message is one sentence that names the log."""


class Pool(abc.ABC):
    """Where children are trained.

    The loop calls `tend` again and again, `wait` when there is nothing for itself to do, `wake` after new children are
    in the store, and `close` once, whatever happened.
    """

    @abc.abstractmethod
    def tend(self) -> bool:
        """Does what is due: trains, restarts dead workers, kills those past a deadline. True where a child may have
        ended. Raises PoolError."""

    @abc.abstractmethod
    def wait(self, seconds: float) -> None:
        """Returns as soon as a worker has news, at the latest after so many seconds."""

    @abc.abstractmethod
    def wake(self) -> None:
        """Tells idle workers that children are ready."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends every worker at once. Children that ran stay `running` in the store, for the coordinator to ready."""


class InlinePool(Pool):
    """Trains in the coordinator's own process, one child a call."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def tend(self) -> bool:
        return self._worker.work_once()

    def wait(self, seconds: float) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclasses.dataclass
class _Slot:
    """A place for one worker after another."""

    index: int
    device: str
    environment: Mapping[str, str]
    process: WorkerProcess | None = None
    generation: int = 0
    start_failures: int = 0
    child: int | None = None  # the child that it was seen running
    child_since: float = 0.0
    progress: int = -1
    progress_since: float = 0.0


class LocalPool(Pool):
    """Worker processes on this machine.

    Args:
        order: what each worker is told: store, search_id, settings, epoch, keep, threads.
        count: how many workers.
        gpus: GPUs to pin workers to, in turn; with none, workers see no GPU.
        log_dir: where each slot's output goes.
        stall: seconds without a step after which a worker is killed.
        timeout: seconds that a child may take, or None.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: Store,
        order: Mapping[str, Any],
        *,
        count: int,
        gpus: Sequence[str],
        log_dir: Path,
        stall: float,
        timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._order = order
        self._log_dir = log_dir
        self._stall = stall
        self._timeout = timeout
        self._clock = clock
        self._news, self._notify = os.pipe()
        os.set_blocking(self._news, False)
        log_dir.mkdir(parents=True, exist_ok=True)
        self._slots = [self._slot(index, gpus) for index in range(count)]
        try:
            for slot in self._slots:
                self._start(slot)
        except BaseException:
            self.close()  # nobody else could: the caller has no pool yet
            raise

    def tend(self) -> bool:
        ended = self._drain()
        for slot in self._slots:
            if slot.process is not None and slot.process.poll():
                self._bury(slot)
                ended = True
        ended |= self._enforce_deadlines()
        for slot in self._slots:
            if slot.process is None:
                self._start(slot)
        return ended

    def wait(self, seconds: float) -> None:
        sentinels = [slot.process.sentinel for slot in self._slots if slot.process is not None]
        select.select([self._news, *sentinels], [], [], seconds)

    def wake(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.wake()

    def close(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process = None
        for end in (self._news, self._notify):
            with contextlib.suppress(OSError):
                os.close(end)

    def _slot(self, index: int, gpus: Sequence[str]) -> _Slot:
        gpu = gpus[index % len(gpus)] if gpus else None
        return _Slot(index, "cpu" if gpu is None else f"gpu {gpu}", environment(self._order["threads"], gpu))

    def _start(self, slot: _Slot) -> None:
        slot.generation += 1
        name = f"{self._order['epoch']}.{slot.index}.{slot.generation}"
        order = {**self._order, "name": name, "device": slot.device, "notify": self._notify}
        slot.process = WorkerProcess(
            name,
            json.dumps(order),
            log=self._log_dir / f"worker-{slot.index}.log",
            environment=slot.environment,
            pass_fd=self._notify,
        )
        slot.child, slot.progress = None, -1

    def _drain(self) -> bool:
        """Reads the workers' news: `r` for ready, `d` for delivered."""
        try:
            news = os.read(self._news, 65536)
        except BlockingIOError:
            return False
        if b"r" in news:
            for slot in self._slots:
                slot.start_failures = 0
        return True

    def _bury(self, slot: _Slot) -> None:
        """Records how a dead worker ended, against the child it was running."""
        process, slot.process = slot.process, None
        assert process is not None
        tail = process.log_tail()
        process.kill()  # whatever its child left running in the group
        claim = self._store.claim_of(self._order["search_id"], process.name)
        if claim is None:
            slot.start_failures += 1
            if slot.start_failures >= START_FAILURES:
                raise PoolError(f"Workers end before they are ready ({process.ending}); their log is {process.log}.")
            return
        fault = Fault.STORE_LOST if process.exit_code == STORE_LOST_EXIT else Fault.CRASHED
        self._store.fail_attempt(
            claim,
            fault,
            message=f"its worker ended ({process.ending})",
            exit_code=process.exit_code,
            signal=process.signal,
            log=tail,
        )

    def _enforce_deadlines(self) -> bool:
        """Ends workers whose child is past a deadline; True where there was one."""
        running = self._store.children(self._order["search_id"], states=[State.RUNNING])
        of_worker = {child.worker: child for child in running}
        now = self._clock()
        killed = False
        for slot in self._slots:
            child = of_worker.get(slot.process.name) if slot.process is not None else None
            if child is None:
                slot.child = None
                continue
            if slot.child != child.number:
                slot.child, slot.child_since, slot.progress = child.number, now, -1
            if slot.progress != child.progress:
                slot.progress, slot.progress_since = child.progress, now
            late = self._timeout is not None and now - slot.child_since > self._timeout
            if late:
                self._kill(slot, f"it took more than {self._timeout:g} s (--child-timeout)")
                killed = True
            elif now - slot.progress_since > self._stall:
                self._kill(slot, f"it made no step for {self._stall:g} s (--stall)")
                killed = True
        return killed

    def _kill(self, slot: _Slot, reason: str) -> None:
        process, slot.process = slot.process, None
        assert process is not None
        tail = process.log_tail()
        process.kill()
        claim = self._store.claim_of(self._order["search_id"], process.name)
        if claim is not None:
            self._store.fail_attempt(claim, Fault.TIMEOUT, message=reason, log=tail)
