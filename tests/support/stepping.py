"""Runs whole searches in one thread and steps every worker by hand, so a test can kill a search at any store call."""

from __future__ import annotations

import gc
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automl.child_trainers.experiment import Experiment
from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.workers.pool import Pool
from automl.child_trainers.workers.worker import Worker
from automl.controller_records import restore_controller
from automl.controllers.base import Controller, ControllerState, Cost, Draw, PendingChild, Proposal, Result
from automl.controllers.keyed import stream
from automl.coordinator import Coordinator
from automl.db.owner import Owner
from automl.db.records import Claim, Delivery, Search
from automl.db.store import Store
from automl.endings import Ending, Stop
from automl.proposer import Limits, Proposer
from automl.search_spaces.decisions import Choice
from automl.search_spaces.recorded import Catalogue
from automl.search_spaces.space import Space

NUM_DIGITS = 4


class Killed(BaseException):
    """Simulates the end of the process: `except Exception` does not catch it."""


class KillingStore:
    """A store whose n-th call raises `Killed`: before its execution, or after it, so that its answer is lost."""

    def __init__(self, store: Store, kill_at: int | None = None, *, after: bool = False) -> None:
        self._store = store
        self._kill_at = kill_at
        self._after = after
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            number = len(self.calls)
            self.calls.append(name)
            if number == self._kill_at and not self._after:
                raise Killed
            answer = value(*arguments, **options)
            if number == self._kill_at:
                raise Killed
            return answer

        return call


class Tally(Controller):
    """Learns by counting: every draw depends on all rewards so far and their order, so a reward that is lost, doubled
    or out of order changes all later children."""

    def __init__(self, space: Space, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._told = np.zeros(3)

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        return [self._draw(draw) for draw in draws]

    def _draw(self, draw: Draw) -> Proposal:
        uniforms = stream(self.seed + int(self._told[1] * 1e6), draw.number, draw.attempt)
        walk = self.space.walk(draw.number)
        while (decision := walk.decision) is not None:
            walk.answer(draw.answer(decision) or (int(uniforms.integers(len(decision.options))),))
        return Proposal(walk.tokens, (-1.0,) * len(walk.tokens))

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        for result in results:
            self._told = np.array([self._told[0] + 1, (self._told[1] * 0.5 + (result.reward or 0.0)) % 1.0, 0.0])
        return {"told": float(self._told[0])}

    def state(self) -> ControllerState:
        return ControllerState({"told": self._told}, {})

    def restore(self, state: ControllerState) -> None:
        self._told = np.array(state.arrays["told"])


class SteppedPool(Pool):
    """Workers that advance in turn, one phase at a time: they claim side by side and deliver in another order."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._turns = itertools.cycle(range(len(workers)))
        self._workers = list(workers)
        self._claims: dict[int, Claim] = {}
        self._deliveries: dict[int, Delivery] = {}

    def tend(self) -> bool:
        index = next(self._turns)
        worker = self._workers[index]
        if index in self._deliveries:
            return worker.deliver(self._claims.pop(index), self._deliveries.pop(index))
        if index in self._claims:
            delivery = worker.train(self._claims[index])
            if delivery is not None:
                self._deliveries[index] = delivery
        elif (claim := worker.claim()) is not None:
            self._claims[index] = claim
        return False

    def wait(self, seconds: float) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def digits_space() -> Any:
    """Four digits of 0 to 2: 81 children."""
    digits = []
    for index in range(NUM_DIGITS):
        digits.append((yield Choice(f"digit{index}", (0, 1, 2), kind=f"digit{index}")))
    return digits


def worth(spec: list[int], report: Any) -> float:
    """A number from 0 to 1, different for every spec."""
    value = sum(digit / 3 ** (index + 1) for index, digit in enumerate(spec))
    report(1, value=value)
    return value


class Bench:
    """Makes searches on copies of one empty store, and runs each of them with new objects."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        workers: int = 1,
        batch_size: int = 2,
        evaluate: Callable[..., Any] = worth,
        space: Callable[..., Any] = digits_space,
        controller: Callable[..., Controller] = Tally,
        cost: Callable[[Any], Cost] = lambda spec: Cost(None, None),
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        floor: float | None = None,
        keep_going: bool = False,
    ) -> None:
        self._folder = folder
        self._replicas = replicas
        self._workers = workers
        self._batch_size = batch_size
        self._experiment = Experiment(Space(space), FunctionTask(evaluate))
        self._make_controller = controller
        self._cost = cost
        self._limits = limits
        self._floor = floor
        self._keep_going = keep_going
        self._count = 0
        self._template = folder / "template.db"
        Store(str(self._template), create=True).close()
        # As a worker does when it warms up: where another test imported Keras, each child collects garbage.
        gc.freeze()

    def new_store(self, requests: Sequence[tuple[int, ...]] = ()) -> Store:
        """A store with one search that has not started, and the user's requests for it."""
        self._count += 1
        path = self._folder / f"{self._count}.db"
        shutil.copy(self._template, path)
        store = Store(str(path))
        store.create_search(
            "search",
            space="digits",
            task="worth",
            controller="tally",
            seed=7,
            replicas=self._replicas,
            batch_size=self._batch_size,
            threads=1,
            settings={},
            budget=None,
        )
        for tokens in requests:
            store.request_child("search", tokens)
        return store

    def run(self, store: Any, budget: int | None, stop: Stop | None = None) -> Ending:
        """The life of one process, from taking the lease to releasing it. An earlier coordinator is dead."""
        lease = store.take_lease("search", Owner.this_process(), gone=lambda owner: True)
        store.set_budget(lease, budget)
        coordinator = self.coordinator(store, lease)
        ending = coordinator.run(budget, stop or Stop())
        store.release(lease, ending.state, ending.cause)
        return ending

    def coordinator(self, store: Any, lease: Any) -> Coordinator:
        search: Search = store.search("search")
        controller = self._make_controller(self._experiment.space, seed=search.seed)
        restore_controller(store, search.id, controller)
        proposer = Proposer(
            self._experiment.space,
            controller,
            self._cost,
            self._limits,
            seed=search.seed,
            seen=store.hashes(search.id),
            refused=search.refused,
            catalogue=Catalogue(store.decisions(search.id)),
        )
        workers = [
            Worker(store, search.id, self._experiment, f"{lease.epoch}.{index}", "test", lease.epoch, 0, beat=False)
            for index in range(self._workers)
        ]
        return Coordinator(
            store,
            search,
            lease,
            controller,
            proposer,
            SteppedPool(workers),
            floor=self._floor,
            keep_going=self._keep_going,
        )


def digest(store: Store) -> str:
    return store.digest(store.search("search").id)
