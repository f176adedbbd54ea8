"""The main loop of a worker: it receives its order, trains child after child, and ends when a fresh worker is due.

`serve` runs over any channel. `main` is the entry point of the process that `LocalPool` starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import psutil

from automl.child_trainers.artefacts import WorkerLog, artefacts_from_json
from automl.child_trainers.devices import limit_gpu_memory
from automl.child_trainers.experiment import make_experiment
from automl.child_trainers.gpu_faults import GpuLostError
from automl.child_trainers.task import SearchFaultError, Task
from automl.child_trainers.workers.messages import Delivered, GpuLost, MessageError, Ready, SearchFault, WorkerOrder
from automl.child_trainers.workers.transport import Channel, ChannelClosedError, PipeChannel
from automl.child_trainers.workers.worker import Worker
from automl.db.records import StoreError
from automl.db.store import Store

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
STORE_LOST_EXIT = 75  # exit code of a worker process whose store does not answer


def serve(order: WorkerOrder, channel: Channel, *, log: WorkerLog | None, on_closed: Callable[[], None]) -> None:
    """Trains children until a fresh worker is due, or the pool has closed the channel.

    Args:
        log: where this worker prints, or None if the output is not read back.
        on_closed: called from another thread when the pool has closed the channel, even while a child trains.

    Raises:
        StoreError: the store does not answer.
    """
    inbox = _Inbox(channel, on_closed)
    with contextlib.closing(Store(order.store)) as store:
        worker = Worker(
            store,
            order.search_id,
            make_experiment(order.settings, download=False),
            order.worker,
            order.device,
            order.epoch,
            order.keep,
            order.early_stop,
            slot=order.slot,
            artefacts=artefacts_from_json(order.artefacts),
            log=log,
        )
        if order.gpu_memory is not None:
            limit_gpu_memory(order.gpu_memory)
        worker.warm_up()
        if (missing := _missing_gpu(order, worker.experiment.task)) is not None:
            _report_fault(GpuLost(missing), channel, inbox)
            return
        channel.send(Ready())
        recycling = Recycling(order.recycle_after, order.recycle_growth)
        while not recycling.due() and not inbox.closed:
            try:
                trained = worker.work_once() if store.claimable(worker.search_id) else 0
            except SearchFaultError as error:
                _report_fault(SearchFault.of(error), channel, inbox)
                return
            except GpuLostError as error:
                logger.info("The GPU is lost.", exc_info=error)
                _report_fault(GpuLost.of(error), channel, inbox)
                return
            if not trained:
                inbox.wait(POLL_SECONDS)
                continue
            recycling.trained(trained)
            channel.send(Delivered())
            # The graph of a finished child is a cycle of references. Without this call, about ten graphs are collected
            # at once, in the measured time of a later child.
            gc.collect()
        logger.info("Makes room for a fresh worker after %d children.", recycling.children)


def _report_fault(fault: SearchFault | GpuLost, channel: Channel, inbox: _Inbox) -> None:
    """Reports a fault that is not the child's, and waits until the pool ends this worker, so that its child is not
    failed as that of a worker that died."""
    logger.error("%s", fault.sentence)
    channel.send(fault)
    while not inbox.closed:
        inbox.wait(POLL_SECONDS)


def _missing_gpu(order: WorkerOrder, task: Task) -> str | None:
    """Says that TensorFlow does not see the GPUs of this worker; None if it does, or if the task does not use it."""
    tensorflow = sys.modules.get("tensorflow")
    if order.num_gpus == 0 or tensorflow is None or not task.uses_tensorflow:
        return None
    seen = len(tensorflow.config.list_physical_devices("GPU"))
    if seen >= order.num_gpus:
        return None
    return f"TensorFlow sees {seen or 'no'} GPU{'s' if seen > 1 else ''} where it should see {order.num_gpus}"


class Recycling:
    """Decides when a fresh worker must replace this one, because every training leaks a little memory.

    The first training loads libraries, among them those of CUDA, and fills caches that later ones use again. So growth
    is measured from the end of the first training.

    Args:
        after: the number of children after which a fresh worker is due.
        growth: the growth of memory in bytes after which a fresh worker is due.
    """

    def __init__(self, after: int, growth: int) -> None:
        self._after = after
        self._growth = growth
        self._after_first: int | None = None  # bytes
        self.children = 0

    def trained(self, children: int) -> None:
        """Records that a child or a population was trained."""
        self.children += children
        if self._after_first is None:
            self._after_first = own_resident_bytes()

    def due(self) -> bool:
        """Whether a fresh worker is due."""
        if self._after_first is None:
            return False
        return self.children >= self._after or own_resident_bytes() - self._after_first > self._growth


def own_resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 if it is not known."""
    try:
        return int(psutil.Process().memory_info().rss)
    except (psutil.Error, OSError):
        return 0


class _Inbox:
    """Receives the messages of the pool in a thread. Any message wakes an idle worker.

    Attributes:
        closed: whether the pool has closed the channel.
    """

    def __init__(self, channel: Channel, on_closed: Callable[[], None]) -> None:
        self.closed = False
        self._channel = channel
        self._on_closed = on_closed
        self._woken = threading.Event()
        threading.Thread(target=self._follow, daemon=True, name="inbox").start()

    def wait(self, seconds: float) -> None:
        """Returns as soon as a message comes, at the latest after `seconds`."""
        self._woken.wait(seconds)
        self._woken.clear()

    def _follow(self) -> None:
        while not self.closed:
            try:
                self._channel.receive()
            except ChannelClosedError:
                self.closed = True
            except MessageError as error:
                logger.error("%s", error)
            self._woken.set()
        self._on_closed()


def main(to_pool: int) -> None:
    """Runs in the process that `LocalPool` starts. Standard input is the pipe from the pool, `to_pool` that to it."""
    from_pool = os.dup(sys.stdin.fileno())
    with open(os.devnull) as null:
        os.dup2(null.fileno(), sys.stdin.fileno())
    _die_with_parent()
    channel = PipeChannel(from_pool, to_pool)
    try:
        order = channel.receive()
    except ChannelClosedError:
        sys.exit("The coordinator ended before it sent an order.")
    assert isinstance(order, WorkerOrder)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        log = artefacts_from_json(order.artefacts).worker_log(order.slot)
        serve(order, channel, log=log, on_closed=_kill_own_group)
    except StoreError as error:
        logger.error("%s", error)
        _exit_at_once(STORE_LOST_EXIT)
    except BaseException:
        traceback.print_exc()
        _exit_at_once(1)
    _exit_at_once(0)


def _kill_own_group() -> None:
    """Kills this process and the processes that its children have started."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _exit_at_once(code: int) -> None:
    """Exits without waiting for threads that a user's code has left running, because the pool would wait too."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _die_with_parent() -> None:
    """Asks Linux to send SIGKILL when the parent process dies. Elsewhere the closed pipe ends the worker."""
    with contextlib.suppress(OSError, AttributeError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
