"""Runs one search of a bench in a process of its own, and says what it found."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from automl.db.records import State
from automl.db.store import Store
from automl.listeners.base import BatchProposed, SearchListener, StepLearned
from automl.paths import open_store
from automl.results import resume, search


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A search of one competitor and seed.

    Attributes:
        name: of the search in the store.
        store: address of the store.
        options: as `automl.search` takes them.
        children: to be trained in all.
        noiseless: the metric that is the reward without noise, or None.
    """

    name: str
    store: str
    options: Mapping[str, Any]
    children: int
    noiseless: str | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        rewards: of the trained children, in number order.
        values: their rewards without noise, where the task knows them.
        exhausted: whether the space had no more children.
        seconds: the run took.
        controller_seconds: of them the controller, to learn and to propose.
        timed: the children that were trained in these seconds.
    """

    rewards: list[float]
    values: list[float] | None
    exhausted: bool
    seconds: float
    controller_seconds: float
    timed: int

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class ControllerTime(SearchListener):
    """Adds up what the controller takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def batch_proposed(self, event: BatchProposed) -> None:
        self.seconds += event.seconds

    def step_learned(self, event: StepLearned) -> None:
        self.seconds += event.seconds


def run_job(job: Job) -> Found:
    """Starts the search, or goes on with it where an earlier bench was stopped.

    Raises:
        RuntimeError: it ended before it had trained its children.
    """
    clock, began = ControllerTime(), time.perf_counter()
    with contextlib.closing(Store(job.store, create=True, deferred=True)) as store:
        started = store.has_search(job.name)
        before = store.search(job.name).num_trained if started else 0
    if started:
        result = resume(job.name, store=job.store, children=job.children, listeners=[clock])
    else:
        options = {**job.options, "children": job.children}
        result = search(job.name, store=job.store, listeners=[clock], **options)
    seconds = time.perf_counter() - began
    with contextlib.closing(open_store(job.store)) as store:
        found = store.search(job.name)
        children = store.children(found.id, states=[State.TRAINED])
    exhausted = found.state == "exhausted"
    if len(children) < job.children and not exhausted:
        cause = result.ending.cause if result.ending is not None else found.cause
        raise RuntimeError(
            f"The search {job.name} in {job.store} ended after {len(children)} of {job.children} children: {cause}."
        )
    values = None
    if job.noiseless is not None:
        values = [float((child.metrics or {})[job.noiseless]) for child in children]
    return Found(
        [float(child.reward or 0.0) for child in children],
        values,
        exhausted,
        seconds,
        clock.seconds,
        len(children) - before,
    )
