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
from automl.child_trainers.gpu_faults import lost_gpu
from automl.child_trainers.gpus import device_label
from automl.child_trainers.workers.messages import Delivered, GpuLost, SearchFault, Wake
from automl.child_trainers.workers.monitor import WorkerMonitor
from automl.child_trainers.workers.mps import MpsError, MpsServer, start_mps
from automl.child_trainers.workers.pool import Pool, PoolError, PoolSetup
from automl.child_trainers.workers.process import ROOT, WorkerProcess
from automl.child_trainers.workers.serve import STORE_LOST_EXIT
from automl.child_trainers.workers.transport import ChannelClosedError
from automl.db.records import Child, Fault, State

logger = logging.getLogger(__name__)
MAX_FAILURES = 2  # workers of one slot that die in a row without a child, after which the slot is left empty
RENEW_SECONDS = 15.0  # seconds between two renewals of all claims


@dataclasses.dataclass
class _Slot:
    """A slot of the pool, which has one worker at a time."""

    index: int
    device: str
    num_gpus: int
    environment: Mapping[str, str]
    monitor: WorkerMonitor  # of the current worker, or of the previous one
    process: WorkerProcess | None = None
    generation: int = 0
    failures: int = 0
    quarantined: str | None = None  # the reason why the slot is left empty


class LocalPool(Pool):
    """Worker processes on this machine.

    If a worker dies while it runs a child, the child's attempt fails. If it dies without a child, or loses its GPU,
    that counts as a failure of its slot. After two such failures in a row the slot is left empty. If all slots are
    left empty, `tend` raises PoolError.

    Args:
        clock: returns monotonic time in seconds.
    """

    def __init__(self, setup: PoolSetup, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._setup = setup
        self._store = setup.store
        self._search_id = setup.order.search_id
        self._clock = clock
        self._renewed = clock()
        self._lifeline, self._alive = os.pipe()
        self._notices = list(setup.notices)
        self._slots: list[_Slot] = []
        self._mps: MpsServer | None = None
        try:
            self._mps = self._start_mps()
            self._slots += [self._slot(index) for index in range(setup.count)]
            for slot in self._slots:
                self._start(slot)
        except BaseException:
            self.close()  # the caller has no pool yet that it could close
            raise

    def tend(self) -> bool:
        ended = False
        for slot in self._slots:
            ended |= self._read_messages(slot)
            if slot.process is not None and slot.process.poll():
                self._handle_death(slot)
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
        if self._mps is not None:
            self._mps.close()

    @property
    def notes(self) -> list[str]:
        return self._notices + [
            f"Worker {slot.index} is out of use: {slot.quarantined}"
            for slot in self._slots
            if slot.quarantined is not None
        ]

    def _start_mps(self) -> MpsServer | None:
        """NVIDIA MPS, where workers share a GPU; None without."""
        gpus, uuids = self._setup.gpus, self._setup.gpu_uuids
        if not gpus or self._setup.count <= len(gpus):
            return None
        if len(uuids) > 1 and any(uuid.startswith("MIG-") for uuid in uuids):
            return None  # a server has one slice only
        try:
            return start_mps(ROOT, self._lifeline, uuids)
        except MpsError as error:
            self._notices.append(f"NVIDIA MPS cannot be started, so workers take turns on their GPU ({error}).")
            return None

    def _slot(self, index: int) -> _Slot:
        gpus = self._setup.gpus
        gpu = gpus[index % len(gpus)] if gpus else None
        variables = environment(self._setup.order.threads, gpu)
        if self._mps is not None:
            variables |= self._mps.environment
        monitor = WorkerMonitor(self._setup.deadlines, self._clock())
        num_gpus = 0 if gpu is None else 1 + gpu.count(",")
        return _Slot(index, "cpu" if gpu is None else device_label(gpu), num_gpus, variables, monitor)

    def _start(self, slot: _Slot) -> None:
        slot.generation += 1
        slot.process = WorkerProcess(
            self._setup.order.to(slot.index, slot.generation, slot.device, slot.num_gpus),
            log=self._setup.artefacts.worker_log(slot.index),
            environment=slot.environment,
            lifeline=self._lifeline,
        )
        slot.monitor = WorkerMonitor(self._setup.deadlines, self._clock())

    def _read_messages(self, slot: _Slot) -> bool:
        """Handles the messages of a worker. True if there were any. Raises PoolError if the search is at fault."""
        received = False
        if slot.process is None:
            return received
        try:
            while (message := slot.process.channel.receive(timeout=0.0)) is not None:
                received = True
                if isinstance(message, SearchFault):
                    raise PoolError(message.sentence)
                if isinstance(message, GpuLost):
                    self._handle_lost_gpu(slot, message.sentence)
                    break
                slot.monitor.ready(self._clock())
                if isinstance(message, Delivered):
                    slot.failures = 0
                    slot.monitor.delivered(self._clock())
        except ChannelClosedError:
            pass  # the worker is about to end; `poll` detects that
        return received

    def _handle_lost_gpu(self, slot: _Slot, sentence: str) -> None:
        """Ends a worker whose GPU is lost. Its child is tried again, but the failure of its slot counts."""
        process, slot.process = slot.process, None
        assert process is not None
        process.kill()
        self._fail_children(process, Fault.NODE_LOST, f"its worker lost its GPU ({sentence})")
        reason = (
            f"its workers lose their GPU ({slot.device}: {sentence}); see automl doctor, and their log {process.log}"
        )
        self._count_failure(slot, reason)

    def _handle_death(self, slot: _Slot) -> None:
        """Fails the child that a dead worker was running, or counts a failure of its slot if it had no child."""
        process = slot.process
        assert process is not None
        if slot.num_gpus and process.exit_code != 0 and (lost := lost_gpu(process.log_tail())) is not None:
            self._handle_lost_gpu(slot, lost)  # TensorFlow aborts its process after some errors of a GPU
            return
        slot.process = None
        process.kill()  # ends the processes that its child left running in the group
        fault = Fault.STORE_LOST if process.exit_code == STORE_LOST_EXIT else Fault.CRASHED
        message = f"its worker ended ({process.ending})"
        ended_by_itself = slot.monitor.is_ready and process.exit_code == 0  # so that a fresh worker replaces it
        had_child = self._fail_children(process, fault, message, exit_code=process.exit_code, signal=process.signal)
        if not had_child and not ended_by_itself:
            self._count_failure(slot, f"its workers end without a child ({process.ending}); their log is {process.log}")

    def _fail_children(self, process: WorkerProcess, fault: Fault, message: str, **ending: Any) -> bool:
        """Fails the attempt of a dead worker's child. Several children are released instead, to be claimed one by one.
        False if the worker had no child."""
        claims = self._store.claims_of(self._search_id, process.name)
        if len(claims) == 1:
            log = process.log_tail(claims[0].number)
            self._store.fail_attempt(claims[0], fault, message=message, log=log, **ending)
        elif claims:
            self._store.release_population(claims, fault, message=message, log=process.log_tail(), **ending)
        return bool(claims)

    def _count_failure(self, slot: _Slot, reason: str) -> None:
        """Counts a failure of a slot. Raises PoolError if no slot can be used any more."""
        slot.failures += 1
        if slot.failures < MAX_FAILURES:
            return
        slot.quarantined = reason
        logger.warning("Worker %d is out of use: %s", slot.index, reason)
        if all(other.quarantined is not None for other in self._slots):
            raise PoolError(f"No worker can be used: {reason}.")

    def _renew(self) -> None:
        """Renews the claims of live workers, since a child may keep its worker from renewing. Such a worker keeps its
        child until it exceeds a deadline."""
        if self._clock() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = self._clock()
        alive = [slot.process.name for slot in self._slots if slot.process is not None]
        self._store.renew_claims(self._search_id, alive)

    def _enforce_deadlines(self) -> bool:
        """Ends workers that have exceeded a deadline or the memory limit. True if there were any."""
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
            if not self._fail_children(process, overdue.fault, overdue.reason):
                self._count_failure(slot, f"{overdue.reason}; its log is {process.log}")
        return killed
