"""The contract of listeners, and the events that they receive."""

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
        workers: the number of worker processes; 0 if children are trained in this process.
    """

    search: Search
    segment: int
    workers: int


@dataclasses.dataclass(frozen=True)
class BatchProposed:
    """The children of a batch are in the store, ready for workers. In an exhausted space, a batch may be smaller.

    Attributes:
        seconds: that it took to draw them, refused draws included.
    """

    batch: int
    children: tuple[NewChild, ...]
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class ChildStarted:
    """A worker has claimed a child. Sent once for every attempt.

    Attributes:
        slot: the worker's slot in its pool; None if it has none.
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
    """A child is trained, failed or lost. Sent again at its next end if a paused or ended child is trained further."""

    child: Child


@dataclasses.dataclass(frozen=True)
class StepLearned:
    """The controller has learned from a batch.

    Attributes:
        rewards: the reward that it received for each child, by the child's number; None for a lost child.
        stats: the controller's statistics of the step.
        seconds: that the controller took to learn.
    """

    step: int
    batch: int
    rewards: Mapping[int, float | None]
    stats: Mapping[str, Any]
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class TurnEnded:
    """A turn of the loop has ended. Sent a few times per second, even if nothing has happened.

    Attributes:
        pool_notes: the present notices about the pool, one sentence each.
        warnings: how the run differs from what the user asked for, one sentence each; the list only grows.
    """

    pool_notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.pool_notes, *self.warnings)


@dataclasses.dataclass(frozen=True)
class SegmentEnded:
    """This start or resume has ended with this state of the search. `cause` is None if it is simply finished."""

    segment: int
    state: str
    cause: str | None


class SearchListener:
    """Receives the events of a running search, in the process that runs it, between two turns of its loop.

    A subclass overrides the methods of the events that it needs. `search_started` comes first, `segment_ended` last. A
    child's `child_started` comes before its `measured` and `child_ended`, and these come before the `step_learned` of
    its batch. Events of children are read from the store between turns. If children are trained in this process, they
    therefore come after each child.

    A listener cannot end the search by an `Exception`: the first one of each method is logged. KeyboardInterrupt and
    other exceptions that do not derive from `Exception` are passed on. While a method runs, the search waits.
    """

    def search_started(self, event: SearchStarted) -> None: ...

    def batch_proposed(self, event: BatchProposed) -> None: ...

    def child_started(self, event: ChildStarted) -> None: ...

    def measured(self, event: Measured) -> None: ...

    def child_ended(self, event: ChildEnded) -> None: ...

    def step_learned(self, event: StepLearned) -> None: ...

    def turn_ended(self, event: TurnEnded) -> None: ...

    def segment_ended(self, event: SegmentEnded) -> None: ...
