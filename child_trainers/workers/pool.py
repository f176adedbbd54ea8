"""The contract of pools, which start, watch and end workers; and the pool that trains in the coordinator's process."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from automl.child_trainers.artefacts import Artefacts
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.gpu_faults import GpuLostError
from automl.child_trainers.task import SearchFaultError
from automl.child_trainers.workers.messages import WorkerOrder
from automl.child_trainers.workers.monitor import Deadlines
from automl.child_trainers.workers.worker import Worker
from automl.db.store import Store


class PoolError(Exception):
    """The pool cannot continue: it cannot run workers, or a worker has found a fault of the search itself. The message
    is one sentence."""


@dataclasses.dataclass(frozen=True)
class PoolSetup:
    """The arguments from which a pool is made.

    Attributes:
        store: the store of the search.
        order: the order for all workers; the pool adds the name, slot and device of a worker with `order.to`.
        experiment: the space and the task, for a pool that trains in this process.
        artefacts: the storage of logs and checkpoints.
        deadlines: the limits beyond which a worker is ended.
        count: the number of workers.
        gpus: the GPUs to which workers are pinned in turn, as values for CUDA_VISIBLE_DEVICES; if empty, workers see
            no GPU.
        gpu_uuids: the whole UUIDs of these GPUs; empty if one of them is not known.
        notices: notices about the devices for the user, one sentence each; a pool has them among its `notes`.
    """

    store: Store
    order: WorkerOrder
    experiment: Experiment
    artefacts: Artefacts
    deadlines: Deadlines
    count: int
    gpus: Sequence[str] = ()
    gpu_uuids: Sequence[str] = ()
    notices: Sequence[str] = ()


class Pool(abc.ABC):
    """Starts, watches and ends the workers that train children.

    The coordinator calls `tend` in every turn of its loop, `wait` when the loop has nothing to do, `wake` after it has
    stored new children, and `close` once at the end, also after an error. Workers claim and deliver children through
    the store. A pool fails the attempts of workers that died (`Store.fail_attempt`), renews the claims of live workers
    (`Store.renew_claims`), and ends workers that a `WorkerMonitor` reports as overdue. It raises PoolError for a
    `SearchFault`, and replaces a worker that sends `GpuLost`, whose attempt fails with `Fault.NODE_LOST`.
    """

    @abc.abstractmethod
    def tend(self) -> bool:
        """Restarts dead workers and ends overdue ones; a pool without workers trains a child. True if a child may have
        ended. Raises PoolError if the pool cannot continue."""

    @abc.abstractmethod
    def wait(self, seconds: float) -> None:
        """Returns as soon as a worker has sent a message or has ended, at the latest after `seconds`."""

    @abc.abstractmethod
    def wake(self) -> None:
        """Tells idle workers that children are ready."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends every worker at once. Their children stay `running` in the store; the coordinator makes them ready."""

    @property
    def notes(self) -> list[str]:
        """Notices about the pool for the user, one sentence each."""
        return []


PoolMaker: TypeAlias = Callable[[PoolSetup], Pool]


class InlinePool(Pool):
    """Trains in the coordinator's process, one child or population per call of `tend`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def tend(self) -> bool:
        try:
            return self._worker.work_once() > 0
        except SearchFaultError as error:
            raise PoolError(str(error)) from error
        except GpuLostError as error:
            raise PoolError(f"The GPU of this process is lost ({error}).") from error

    def wait(self, seconds: float) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass
