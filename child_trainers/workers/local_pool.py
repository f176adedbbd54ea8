"""Worker processes on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from automl.child_trainers.devices import environment
from automl.child_trainers.workers.messages import Delivered, SearchFault, Wake
from automl.child_trainers.workers.monitor import WorkerMonitor
from automl.child_trainers.workers.pool import Pool, PoolError, PoolSetup
from automl.child_trainers.workers.process import WorkerProcess
from automl.child_trainers.workers.serve import STORE_LOST_EXIT
from automl.child_trainers.workers.transport import ChannelClosedError
from automl.db.records import Child, Fault, State

logger = logging.getLogger(__name__)
FAILURES = 2  # workers of one slot that may die in a row without a child to blame
RENEW_SECONDS = 15.0  # between two renewals of all claims


@dataclasses.dataclass
class _Slot:
    """A place for one worker after another."""

    index: int
    device: str
    environment: Mapping[str, str]
    monitor: WorkerMonitor  # of the present worker, or of the one before
    process: WorkerProcess | None = None
    generation: int = 0
    failures: int = 0
    quarantined: str | None = None  # why no worker is started here any more


class LocalPool(Pool):
    """Worker processes on this machine.

    A worker that ends while it runs a child is charged to the child. One that ends without, is charged to its slot: a
    slot whose workers do so twice in a row is left empty, and when none is left the pool gives up.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, setup: PoolSetup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._setup = setup
        self._store = setup.store
        self._search_id = setup.order.search_id
        self._clock = clock
        self._renewed = clock()
        self._lifeline, self._alive = os.pipe()
        self._slots = [self._slot(index) for index in range(setup.count)]
        try:
            for slot in self._slots:
                self._start(slot)
        except BaseException:
            self.close()  # nobody else could: the caller has no pool yet
            raise

    def tend(self) -> bool:
        ended = False
        for slot in self._slots:
            ended |= self._read_news(slot)
            if slot.process is not None and slot.process.poll():
                self._bury(slot)
                ended = True
        self._renew()
        ended |= self._enforce_deadlines()
        for slot in self._slots:
            if slot.process is None and slot.quarantined is None:
                self._start(slot)
        return ended

    def wait(self, seconds: float) -> None:
        processes = [slot.process for slot in self._slots if slot.process is not None]
        channels = [process.channel.fileno() for process in processes if process.channel.fileno() >= 0]
        select.select([*channels, *(process.sentinel for process in processes)], [], [], seconds)

    def wake(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.channel.send(Wake())

    def close(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process = None
        for end in (self._lifeline, self._alive):
            with contextlib.suppress(OSError):
                os.close(end)

    @property
    def notes(self) -> list[str]:
        return [
            f"Worker {slot.index} is out of use: {slot.quarantined}"
            for slot in self._slots
            if slot.quarantined is not None
        ]

    def _slot(self, index: int) -> _Slot:
        gpus = self._setup.gpus
        gpu = gpus[index % len(gpus)] if gpus else None
        variables = environment(self._setup.order.threads, gpu)
        monitor = WorkerMonitor(self._setup.deadlines, self._clock())
        return _Slot(index, "cpu" if gpu is None else f"gpu {gpu}", variables, monitor)

    def _start(self, slot: _Slot) -> None:
        slot.generation += 1
        slot.process = WorkerProcess(
            self._setup.order.to(slot.index, slot.generation, slot.device),
            log=self._setup.artefacts.worker_log(slot.index),
            environment=slot.environment,
            lifeline=self._lifeline,
        )
        slot.monitor = WorkerMonitor(self._setup.deadlines, self._clock())

    def _read_news(self, slot: _Slot) -> bool:
        """Takes what a worker has sent; True where it sent something. Raises PoolError: the search is at fault."""
        news = False
        if slot.process is None:
            return news
        try:
            while (message := slot.process.channel.receive(timeout=0.0)) is not None:
                news = True
                if isinstance(message, SearchFault):
                    raise PoolError(message.sentence)
                slot.monitor.ready(self._clock())
                if isinstance(message, Delivered):
                    slot.failures = 0
                    slot.monitor.delivered(self._clock())
        except ChannelClosedError:
            pass  # it is about to end: `poll` will say so
        return news

    def _bury(self, slot: _Slot) -> None:
        """Records how a dead worker ended, against the child it was running, or else against its slot."""
        process, slot.process = slot.process, None
        assert process is not None
        process.kill()  # whatever its child left running in the group
        fault = Fault.STORE_LOST if process.exit_code == STORE_LOST_EXIT else Fault.CRASHED
        message = f"its worker ended ({process.ending})"
        ended_by_itself = slot.monitor.is_ready and process.exit_code == 0  # to make room for a fresh one
        charged = self._charge(process, fault, message, exit_code=process.exit_code, signal=process.signal)
        if not charged and not ended_by_itself:
            self._blame(slot, f"its workers end without a child ({process.ending}); their log is {process.log}")

    def _charge(self, process: WorkerProcess, fault: Fault, message: str, **ending: Any) -> bool:
        """Charges a dead worker's child with its death, or lets several go on one by one; False where it had none."""
        claims = self._store.claims_of(self._search_id, process.name)
        if len(claims) == 1:
            log = process.log_tail(claims[0].number)
            self._store.fail_attempt(claims[0], fault, message=message, log=log, **ending)
        elif claims:
            self._store.release_population(claims, fault, message=message, log=process.log_tail(), **ending)
        return bool(claims)

    def _blame(self, slot: _Slot, reason: str) -> None:
        slot.failures += 1
        if slot.failures < FAILURES:
            return
        slot.quarantined = reason
        logger.warning("Worker %d is out of use: %s", slot.index, reason)
        if all(other.quarantined is not None for other in self._slots):
            raise PoolError(f"No worker can be used: {reason}.")

    def _renew(self) -> None:
        """Prolongs the claims of workers that live: one whose child keeps it from doing so is judged by its deadlines,
        and until then its child is not another's."""
        if self._clock() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = self._clock()
        alive = [slot.process.name for slot in self._slots if slot.process is not None]
        self._store.renew_claims(self._search_id, alive)

    def _enforce_deadlines(self) -> bool:
        """Ends workers that are past a deadline; True where there was one."""
        of_worker: dict[str | None, list[Child]] = defaultdict(list)
        for child in self._store.children(self._search_id, states=[State.RUNNING]):
            of_worker[child.worker].append(child)
        now = self._clock()
        killed = False
        for slot in self._slots:
            process = slot.process
            if process is None:
                continue
            overdue = slot.monitor.overdue(now, process, of_worker[process.name])
            if overdue is None:
                continue
            killed, slot.process = True, None
            process.kill()
            if not self._charge(process, overdue.fault, overdue.reason):
                self._blame(slot, f"{overdue.reason}; its log is {process.log}")
        return killed
