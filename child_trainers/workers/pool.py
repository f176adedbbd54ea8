"""Pools start, watch and end workers; the loop sees only the verbs of `Pool`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import logging
import os
import select
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import environment
from automl.child_trainers.task import SearchFaultError
from automl.child_trainers.workers.process import WorkerProcess
from automl.child_trainers.workers.worker import STORE_LOST_EXIT, Worker
from automl.db.records import Child, Fault, State
from automl.db.store import Store

logger = logging.getLogger(__name__)
FAILURES = 2  # workers of one slot that may die in a row without a child to blame
MEMORY_SECONDS = 1.0  # between two looks at memory
RENEW_SECONDS = 15.0  # between two renewals of all claims


class PoolError(Exception):
    """The pool cannot continue: it cannot run workers, or a worker found a fault of the search itself. The message is
    one sentence."""


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

    @property
    def notes(self) -> list[str]:
        """What a person should know of the pool, a sentence each."""
        return []


class InlinePool(Pool):
    """Trains in the coordinator's own process, one child a call."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def tend(self) -> bool:
        try:
            return self._worker.work_once() > 0
        except SearchFaultError as error:
            raise PoolError(str(error)) from error

    def wait(self, seconds: float) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


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


@dataclasses.dataclass
class _Slot:
    """A place for one worker after another."""

    index: int
    device: str
    environment: Mapping[str, str]
    process: WorkerProcess | None = None
    generation: int = 0
    ready: bool = False
    failures: int = 0
    quarantined: str | None = None  # why no worker is started here any more
    child: int | None = None  # the first of the children that it was seen running, until it says that they are over
    company: int = 1  # how many there were then: together they may take as long as one after the other
    child_since: float = 0.0
    progress: int = -1
    progress_since: float = 0.0


class LocalPool(Pool):
    """Worker processes on this machine.

    A worker that ends while it runs a child is charged to the child. One that ends without, is charged to its slot: a
    slot whose workers do so twice in a row is left empty, and when none is left the pool gives up.

    Args:
        order: what each worker is told: store, search_id, settings, epoch, keep, threads, recycling.
        count: how many workers.
        gpus: GPUs to pin workers to, in turn; with none, workers see no GPU.
        log_dir: where each slot's output goes.
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
        deadlines: Deadlines,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._order = order
        self._log_dir = log_dir
        self._deadlines = deadlines
        self._clock = clock
        self._memory_looked = self._renewed = clock()
        self._news, self._notify = os.pipe()
        self._lifeline, self._alive = os.pipe()
        os.set_blocking(self._news, False)
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
        self._renew()
        ended |= self._enforce_deadlines()
        for slot in self._slots:
            if slot.process is None and slot.quarantined is None:
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
        for end in (self._news, self._notify, self._lifeline, self._alive):
            with contextlib.suppress(OSError):
                os.close(end)

    @property
    def notes(self) -> list[str]:
        return [
            f"Worker {slot.index} is out of use: {slot.quarantined}"
            for slot in self._slots
            if slot.quarantined is not None
        ]

    def _slot(self, index: int, gpus: Sequence[str]) -> _Slot:
        gpu = gpus[index % len(gpus)] if gpus else None
        return _Slot(index, "cpu" if gpu is None else f"gpu {gpu}", environment(self._order["threads"], gpu))

    def _start(self, slot: _Slot) -> None:
        slot.generation += 1
        name = f"{self._order['epoch']}.{slot.index}.{slot.generation}"
        log = self._log_dir / f"worker-{slot.index}.log"
        order = {
            **self._order,
            "name": name,
            "device": slot.device,
            "notify": self._notify,
            "log": str(log),
        }
        slot.process = WorkerProcess(
            name,
            json.dumps(order),
            log=log,
            environment=slot.environment,
            news=self._notify,
            lifeline=self._lifeline,
        )
        slot.child, slot.progress, slot.progress_since, slot.ready = None, -1, self._clock(), False

    def _drain(self) -> bool:
        """Reads the workers' news, a line each: `ready NAME`, `delivered NAME`, and `fault NAME SENTENCE`.

        Raises:
            PoolError: the search itself is at fault.
        """
        try:
            news = os.read(self._news, 65536)
        except BlockingIOError:
            return False
        for line in news.decode().splitlines():
            word, _, rest = line.partition(" ")
            name, _, sentence = rest.partition(" ")
            if word == "fault":
                raise PoolError(sentence)
            for slot in self._slots:
                if slot.process is not None and slot.process.name == name:
                    slot.ready, slot.progress_since = True, self._clock()
                    if word == "delivered":
                        slot.failures, slot.child = 0, None
        return True

    def _bury(self, slot: _Slot) -> None:
        """Records how a dead worker ended, against the child it was running, or else against its slot."""
        process, slot.process = slot.process, None
        assert process is not None
        process.kill()  # whatever its child left running in the group
        fault = Fault.STORE_LOST if process.exit_code == STORE_LOST_EXIT else Fault.CRASHED
        message = f"its worker ended ({process.ending})"
        ended_by_itself = slot.ready and process.exit_code == 0  # to make room for a fresh one
        charged = self._charge(process, fault, message, exit_code=process.exit_code, signal=process.signal)
        if not charged and not ended_by_itself:
            self._blame(slot, f"its workers end without a child ({process.ending}); their log is {process.log}")

    def _charge(self, process: WorkerProcess, fault: Fault, message: str, **ending: Any) -> bool:
        """Charges a dead worker's child with its death, or lets several go on one by one; False where it had none."""
        claims = self._store.claims_of(self._order["search_id"], process.name)
        if len(claims) == 1:
            log = process.log_tail(claims[0].number)
            self._store.fail_attempt(claims[0], fault, message=message, log=log, **ending)
        elif claims:
            self._store.part_company(claims, fault, message=message, log=process.log_tail(), **ending)
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
        self._store.renew_claims(self._order["search_id"], alive)

    def _enforce_deadlines(self) -> bool:
        """Ends workers that are past a deadline; True where there was one."""
        running = self._store.children(self._order["search_id"], states=[State.RUNNING])
        of_worker: dict[str | None, list[Child]] = defaultdict(list)
        for child in running:
            of_worker[child.worker].append(child)
        now = self._clock()
        look_at_memory = self._deadlines.memory is not None and now - self._memory_looked >= MEMORY_SECONDS
        if look_at_memory:
            self._memory_looked = now
        killed = False
        for slot in self._slots:
            if slot.process is None:
                continue
            verdict = self._judge(slot, of_worker[slot.process.name], now, look_at_memory)
            if verdict is not None:
                self._kill(slot, *verdict)
                killed = True
        return killed

    def _judge(
        self, slot: _Slot, children: Sequence[Child], now: float, look_at_memory: bool
    ) -> tuple[Fault, str] | None:
        """Why a worker that runs these children must be ended, or None."""
        assert slot.process is not None
        deadlines = self._deadlines
        if look_at_memory and deadlines.memory is not None:
            held = slot.process.resident_bytes()
            if held > deadlines.memory:  # what its processes share counts once, which takes longer to tell
                held = slot.process.resident_bytes(shared_once=True)
            if held > deadlines.memory:
                return Fault.OOM, (
                    f"its worker held {held / 2**30:.2f} GB where {deadlines.memory / 2**30:.2f} are allowed "
                    "(--worker-memory)"
                )
        if not children:
            if now - slot.progress_since > deadlines.stall:
                if not slot.ready:
                    return Fault.TIMEOUT, f"it was not ready after {deadlines.stall:g} s (--stall)"
                if slot.child is not None:  # its claim was lost, and it has not come back from the child since
                    return Fault.TIMEOUT, f"it did not come back from child {slot.child} (--stall)"
            return None
        child = children[0]
        if slot.child != child.number:
            slot.child, slot.child_since, slot.progress = child.number, now, -1
            slot.company = len(children)
        if slot.progress != child.progress:
            slot.progress, slot.progress_since = child.progress, now
        if deadlines.timeout is not None and now - slot.child_since > slot.company * deadlines.timeout:
            return Fault.TIMEOUT, f"it took more than {slot.company * deadlines.timeout:g} s (--child-timeout)"
        if now - slot.progress_since > deadlines.stall:
            return Fault.TIMEOUT, f"it made no step for {deadlines.stall:g} s (--stall)"
        return None

    def _kill(self, slot: _Slot, fault: Fault, reason: str) -> None:
        process, slot.process = slot.process, None
        assert process is not None
        process.kill()
        if not self._charge(process, fault, reason):
            self._blame(slot, f"{reason}; its log is {process.log}")
