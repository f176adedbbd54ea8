"""Runs one search of a bench and returns its history."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from automl.db.records import State
from automl.db.store import Store
from automl.donors.describing import donor_identity
from automl.listeners.base import BatchProposed, SearchListener, StepLearned
from automl.paths import open_store
from automl.results import resume, search


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """The search of one competitor and seed.

    Attributes:
        name: the search's name in the store.
        store: the address of the store.
        options: the keyword arguments of `automl.search`.
        children: the number of children to train.
        noiseless: the metric that is the reward without noise, or None.
        donors: the identities of the earlier searches that it learns from.
    """

    name: str
    store: str
    options: Mapping[str, Any]
    children: int
    noiseless: str | None = None
    donors: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class History:
    """The rewards of a search, and the times of the run that ended it.

    Attributes:
        rewards: the rewards of the trained children, in the order of their numbers.
        values: the rewards without noise, or None if the task does not know them.
        exhausted: whether all children of the space are trained.
        seconds: the duration of the run.
        controller_seconds: the part of it that the controller took to learn and to propose.
        timed: the number of children that the run trained.
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
    """Adds up the seconds that the controller takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def batch_proposed(self, event: BatchProposed) -> None:
        self.seconds += event.seconds

    def step_learned(self, event: StepLearned) -> None:
        self.seconds += event.seconds


def run_job(job: Job) -> History:
    """Starts the search, or resumes it if an earlier bench was stopped.

    Raises:
        RuntimeError: the search ended before it had trained its children, or an earlier search has changed.
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
        record = store.search(job.name)
        children = store.children(record.id, states=[State.TRAINED])
        donors = tuple(map(donor_identity, store.donors(record.id)))
    if donors != job.donors:
        raise RuntimeError(
            f"The search {job.name} in {job.store} learned from {', '.join(donors) or 'no earlier search'}, and the "
            f"bench began with {', '.join(job.donors) or 'none'}; name another file with --to, and let no earlier "
            "search continue while a bench runs."
        )
    exhausted = record.state == "exhausted"
    if len(children) < job.children and not exhausted:
        cause = result.ending.cause if result.ending is not None else record.cause
        raise RuntimeError(
            f"The search {job.name} in {job.store} ended after {len(children)} of {job.children} children: {cause}."
        )
    values = None
    if job.noiseless is not None:
        values = [float((child.metrics or {})[job.noiseless]) for child in children]
    return History(
        [float(child.reward or 0.0) for child in children],
        values,
        exhausted,
        seconds,
        clock.seconds,
        len(children) - before,
    )
