"""The contract of listeners, and the events that they are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from automl.db.records import Child, NewChild, Search


@dataclasses.dataclass(frozen=True)
class SearchStarted:
    """A process has begun to run a search: its first start or a resume.

    Attributes:
        segment: the number of this start or resume, from 0.
        workers: 0 where children are trained in this process.
    """

    search: Search
    segment: int
    workers: int


@dataclasses.dataclass(frozen=True)
class BatchProposed:
    """Children of a batch are in the store, ready for workers. In an exhausted space they are fewer than usual."""

    batch: int
    children: tuple[NewChild, ...]


@dataclasses.dataclass(frozen=True)
class ChildStarted:
    """A worker has claimed a child. Once for every attempt.

    Attributes:
        slot: the worker's place in its pool; None where it has none.
    """

    child: Child
    device: str
    slot: int | None


@dataclasses.dataclass(frozen=True)
class Measured:
    """A child has reported the metrics of an epoch. `at` is in seconds since 1970, by the database's clock."""

    number: int
    epoch: int
    metrics: Mapping[str, Any]
    at: float


@dataclasses.dataclass(frozen=True)
class ChildEnded:
    """A child is trained, failed or lost. Once more where a paused child has gone on, or one was made ready again."""

    child: Child


@dataclasses.dataclass(frozen=True)
class StepLearned:
    """The controller has learned from a batch.

    Attributes:
        rewards: what it was told, by the child's number; None for a lost child.
        stats: what it says of the step.
    """

    step: int
    batch: int
    rewards: Mapping[int, float | None]
    stats: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TurnEnded:
    """A turn of the loop is over: a few a second, also when nothing has happened.

    Attributes:
        pool_notes: what there is to know of the pool now, a sentence each.
        warnings: how the run differs from what was asked for, a sentence each; the list only grows.
    """

    pool_notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.pool_notes, *self.warnings)


@dataclasses.dataclass(frozen=True)
class SegmentEnded:
    """The run is over; the search has this state, and a cause where it is not simply finished."""

    segment: int
    state: str
    cause: str | None


class SearchListener:
    """Is told of a running search, in the process that runs it and between two turns of its loop.

    Overrides what it wants to hear. First comes `search_started`, last `segment_ended`; a child's `child_started` comes
    before its `measured` and `child_ended`, and that before the `step_learned` of its batch. What happened to children
    is read from the store between turns; so where they are trained in this process, it is told after each child.

    A listener never ends the search: what it raises is logged, once for each of its methods. Only KeyboardInterrupt and
    others that are no `Exception` go through. While a method runs, the search does not go on.
    """

    def search_started(self, event: SearchStarted) -> None: ...

    def batch_proposed(self, event: BatchProposed) -> None: ...

    def child_started(self, event: ChildStarted) -> None: ...

    def measured(self, event: Measured) -> None: ...

    def child_ended(self, event: ChildEnded) -> None: ...

    def step_learned(self, event: StepLearned) -> None: ...

    def turn_ended(self, event: TurnEnded) -> None: ...

    def segment_ended(self, event: SegmentEnded) -> None: ...
