"""The contract of pools, which start, watch and end workers; and the pool that trains in the coordinator's process."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from automl.child_trainers.artefacts import Artefacts
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.task import SearchFaultError
from automl.child_trainers.workers.messages import WorkerOrder
from automl.child_trainers.workers.monitor import Deadlines
from automl.child_trainers.workers.worker import Worker
from automl.db.store import Store


class PoolError(Exception):
    """The pool cannot continue: it cannot run workers, or a worker found a fault of the search itself. The message is
    one sentence."""


@dataclasses.dataclass(frozen=True)
class PoolSetup:
    """What a pool is made from.

    Attributes:
        order: for any worker; the pool adds its name, slot and device with `order.to`.
        experiment: space and task, for a pool that trains in this process.
        count: how many workers.
        gpus: GPUs to pin workers to, in turn; with none, workers see no GPU.
    """

    store: Store
    order: WorkerOrder
    experiment: Experiment
    artefacts: Artefacts
    deadlines: Deadlines
    count: int
    gpus: Sequence[str] = ()


class Pool(abc.ABC):
    """Where children are trained.

    The loop calls `tend` again and again, `wait` when there is nothing for itself to do, `wake` after new children are
    in the store, and `close` once, whatever happened. Workers claim and deliver children through the store; a pool
    tells it of those that died (`Store.fail_attempt`), renews the claims of those that live (`Store.renew_claims`), and
    ends those that a `WorkerMonitor` finds overdue.
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
        """What the user should know of the pool, a sentence each."""
        return []


PoolMaker: TypeAlias = Callable[[PoolSetup], Pool]


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
