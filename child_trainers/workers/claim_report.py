"""Writes the measurements of a child that is training to the store, under its claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automl.child_trainers.task import reported
from automl.child_trainers.training.checkpoints import Checkpoint
from automl.child_trainers.training.early_stop import Stopper
from automl.db.records import Claim
from automl.db.store import Store


class ClaimLostError(Exception):
    """The claim is not valid any more, so the store accepts no results under it."""


class ClaimReport:
    """A `Report` that writes a child's measurements to the store and asks the pruner after each epoch.

    Calls raise ClaimLostError if the claim was lost, and EarlyStopError if the pruner stops the child.

    Attributes:
        checkpoint: see `Report`.
        last: the metrics of the latest epoch as JSON values.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        stopper: Stopper | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._store = store
        self._claim = claim
        self._stopper = stopper
        self.checkpoint = checkpoint
        self.last: dict[str, Any] = {}
        self._steps_done: Callable[[], int] = lambda: 0

    def __call__(self, epoch: int, **metrics: float) -> None:
        self._measure(epoch, metrics)
        if self._stopper is not None:
            self._stopper.report(int(epoch), self.last)

    def restore(self, history: Sequence[Mapping[str, float]]) -> None:
        for epoch, metrics in enumerate(history, start=1):
            self._measure(epoch, metrics)
            if self._stopper is not None:
                self._stopper.restore(epoch, self.last)

    def _measure(self, epoch: int, metrics: Mapping[str, float]) -> None:
        plain = reported(epoch, metrics)
        if not self._store.measure(self._claim, int(epoch), plain):
            raise ClaimLostError
        self.last = plain

    def follow(self, steps_done: Callable[[], int]) -> None:
        self._steps_done = steps_done

    @property
    def steps(self) -> int:
        """The training steps done so far."""
        return self._steps_done()
