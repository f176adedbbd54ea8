"""Early stopping: stops or pauses unpromising children after an epoch, and predicts their final rewards."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from automl.child_trainers.task import Objective
from automl.db.records import Curve
from automl.db.store import Store

if TYPE_CHECKING:
    import optuna

FIRST_CHILDREN = 8  # that are trained to the end before any child is stopped
REDUCTION = 3  # successive halving promotes one in so many children of a rung


class EarlyStopError(Exception):
    """Ends a child's training after an epoch, for good or until the child is resumed."""

    def __init__(self, epoch: int, *, paused: bool = False) -> None:
        super().__init__(f"It was {'paused' if paused else 'stopped'} after epoch {epoch}.")
        self.epoch = epoch
        self.paused = paused


class Stopper(abc.ABC):
    """Decides after each epoch of a child whether to stop it, by comparison with the children that have ended.

    A worker has one stopper, for one child at a time. A stopped child counts as trained, with a predicted reward. The
    store keeps its last epoch as `stopped_at`.

    Args:
        objective: the metric that is compared, and the number of epochs of a child that is not stopped.
    """

    pauses = False  # whether a stopped child may be resumed later from its checkpoint

    def __init__(self, store: Store, search_id: int, *, objective: Objective) -> None:
        self._store = store
        self._search_id = search_id
        self._metric = objective.metric
        self._maximize = objective.maximize
        self._epochs = objective.epochs
        self._curves: dict[int, Curve] = {}
        self._last_read = 0.0  # by the store's clock
        self._values: dict[int, float] = {}
        self._passed = 0

    def warm_up(self) -> None:
        """Imports slow modules."""
        return

    def begin(self, number: int, *, passed: int = 0) -> None:
        """Prepares for a child. Reads from the store which children have ended, the previous one among them.

        Args:
            number: of the child within its search.
            passed: the last epoch of an earlier attempt at this child. Epochs up to it were judged in that attempt.
                They are not judged again, even if they are trained again.
        """
        self._read_curves()
        self._values = {}
        self._passed = passed

    def report(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records an epoch's metrics. Raises EarlyStopError if the child is to be stopped before its last epoch."""
        if epoch <= self._passed:
            self.restore(epoch, metrics)
            return
        if self._metric not in metrics or epoch >= self._epochs:
            return
        self._values[epoch] = float(metrics[self._metric])
        pruned = self._should_prune(epoch)
        if pruned and len(self._finished_pairs(epoch)) >= FIRST_CHILDREN:
            raise EarlyStopError(epoch, paused=self.pauses)

    def restore(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of an epoch of an earlier attempt, without judging the child."""
        if self._metric in metrics and epoch < self._epochs:
            self._values[epoch] = float(metrics[self._metric])
            self._value_restored(epoch)

    def predicted_reward(self) -> float:
        """The predicted final reward of the current child, which was just stopped."""
        epoch = max(self._values)
        return predict_reward(self._values[epoch], self._finished_pairs(epoch))

    def to_continue(self) -> list[int]:
        """The numbers of the paused children that are to be resumed, in this order."""
        return []

    @abc.abstractmethod
    def _should_prune(self, epoch: int) -> bool:
        """Whether to stop the current child, given its values up to this epoch."""

    def _value_restored(self, epoch: int) -> None:
        """Called when the value of an epoch of an earlier attempt at the current child was recorded."""
        return

    def _curve_added(self, curve: Curve) -> None:
        """Called when an ended child was read from the store for the first time."""
        return

    def _read_curves(self) -> None:
        """Reads the children that have ended since the last call."""
        now = self._store.now()
        newest = max((curve.finished for curve in self._curves.values()), default=0.0)
        # If the clock was set back, children that ended since then have earlier times than some that were read before.
        since = min(newest, self._last_read) if now >= self._last_read else 0.0
        self._last_read = now
        for curve in self._store.curves(self._search_id, self._metric, finished_since=since):
            if curve.values and self._curves.get(curve.number) != curve:
                new = curve.number not in self._curves
                self._curves[curve.number] = curve  # replaces that of a paused child which was resumed
                if new:
                    self._curve_added(curve)

    def _finished_pairs(self, epoch: int) -> list[tuple[float, float]]:
        """(value at an epoch, final reward) of each child that was trained to the end."""
        return [
            (curve.values[epoch], curve.reward)
            for curve in self._curves.values()
            if not curve.stopped and epoch in curve.values
        ]


class EarlyStopper(Stopper):
    """Decides with one of Optuna's pruners.

    Each ended child is replayed once into an in-memory study. Other running children do not count.
    `median` stops a child whose best value so far is worse than the median of the other children at the same epoch.
    `hyperband` is Optuna's implementation of Li et al. 2018 (arXiv:1603.06560).

    Args:
        pruner: `median` or `hyperband`.
    """

    def __init__(self, store: Store, search_id: int, pruner: str, *, objective: Objective) -> None:
        super().__init__(store, search_id, objective=objective)
        self._pruner = pruner
        self._trial: optuna.Trial | None = None  # the current child's
        self._number = -1

    def warm_up(self) -> None:
        _ = self._study

    def begin(self, number: int, *, passed: int = 0) -> None:
        from optuna.trial import TrialState

        super().begin(number, passed=passed)
        if self._trial is not None:  # the previous child failed, so the store has no curve of it
            self._study.tell(self._trial, state=TrialState.FAIL)
        self._trial, self._number = self._study.ask(), number

    @functools.cached_property
    def _study(self) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner: optuna.pruners.BasePruner
        if self._pruner == "median":
            # No child is stopped after its first epoch: its learning rate is high and its values are noisy.
            pruner = optuna.pruners.MedianPruner(FIRST_CHILDREN, n_warmup_steps=2, n_min_trials=FIRST_CHILDREN)
        else:
            pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=self._epochs)
        return optuna.create_study(
            study_name=f"search {self._search_id}",  # Hyperband chooses a child's bracket by this name
            direction="maximize" if self._maximize else "minimize",
            pruner=pruner,
        )

    def _should_prune(self, epoch: int) -> bool:
        assert self._trial is not None
        self._trial.report(self._values[epoch], epoch)
        return self._trial.should_prune()

    def _value_restored(self, epoch: int) -> None:
        self._should_prune(epoch)  # the pruner records the value and the rung; its answer is ignored

    def _curve_added(self, curve: Curve) -> None:
        """Reports an ended child's values to the pruner, in the order of epochs."""
        from optuna.trial import TrialState

        reported: Mapping[int, float] = {}
        if self._trial is not None and curve.number == self._number:
            trial, reported, self._trial = self._trial, self._values, None
        else:
            trial = self._study.ask()
        for epoch, value in sorted(curve.values.items()):
            if epoch in reported:
                continue
            trial.report(value, epoch)
            if self._pruner == "hyperband":
                trial.should_prune()  # the pruner records which rungs the child reached
        if curve.stopped and self._pruner == "hyperband":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            # Optuna takes the median over completed trials. A median over unstopped children only would rise with every
            # child that is stopped. So stopped children count as completed, at the epochs that they reached.
            self._study.tell(trial, curve.values[max(curve.values)])


class SuccessiveHalving(Stopper):
    """Asynchronous successive halving: pauses children at rungs and resumes those in the best third of a rung.

    Rungs are a third, a ninth, … of the epochs. A paused child keeps its checkpoint. Once enough worse children have
    reached its rung, it is resumed, before a new child is started. The controller learns from the reward that was
    predicted at the pause; the store gets the real one.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA, arXiv:1810.05934).
    """

    pauses = True

    @property
    def rungs(self) -> list[int]:
        """Epochs after which children are compared, ascending."""
        rungs = []
        epoch = math.ceil(self._epochs / REDUCTION)
        while epoch >= 1 and epoch not in rungs:
            rungs.append(epoch)
            epoch = math.ceil(epoch / REDUCTION)
        return sorted(rung for rung in rungs if rung < self._epochs)

    def to_continue(self) -> list[int]:
        self._read_curves()
        numbers = []
        for rung in reversed(self.rungs):
            threshold = self._promotion_threshold(self._at(rung))
            waiting = [
                (self._sign * curve.values[rung], -curve.number)
                for curve in self._curves.values()
                if curve.stopped and max(curve.values) == rung
            ]
            numbers += [-number for value, number in sorted(waiting, reverse=True) if value >= threshold]
        return numbers

    def _should_prune(self, epoch: int) -> bool:
        if epoch not in self.rungs:
            return False
        value = self._sign * self._values[epoch]
        return value < self._promotion_threshold([*self._at(epoch), value])

    @property
    def _sign(self) -> float:
        return 1.0 if self._maximize else -1.0

    def _at(self, rung: int) -> list[float]:
        """The values of ended and paused children at a rung, with a sign by which more is better."""
        return [self._sign * curve.values[rung] for curve in self._curves.values() if rung in curve.values]

    @staticmethod
    def _promotion_threshold(values: Sequence[float]) -> float:
        """The lowest value of the best third; infinity for fewer than three values."""
        count = len(values) // REDUCTION
        return sorted(values, reverse=True)[count - 1] if count else math.inf


def make_stopper(kind: str, store: Store, search_id: int, objective: Objective | None) -> Stopper | None:
    """The stopper of a search, or None if every child is trained to the end."""
    if kind == "none" or objective is None:
        return None
    if kind == "asha":
        return SuccessiveHalving(store, search_id, objective=objective)
    return EarlyStopper(store, search_id, kind, objective=objective)


def predict_reward(value: float, finished: Sequence[tuple[float, float]]) -> float:
    """Predicts a stopped child's final reward from its value at an epoch, with a least-squares line through `finished`.

    The prediction is clipped to the range from the lowest to the median reward of `finished`. A stopped child is worse
    than others, so its reward must not exceed that of half of them. Nothing shows that it would have been worse than
    every child that was trained to the end.

    Args:
        value: of the stopped child at its last epoch.
        finished: (value at that epoch, final reward) of children that were trained to the end; at least one.
    """
    values, rewards = (np.array(column, np.float64) for column in zip(*finished, strict=True))
    spread = float(np.var(values))
    slope = float(np.mean((values - values.mean()) * (rewards - rewards.mean()))) / spread if spread > 0 else 0.0
    line = float(rewards.mean()) + slope * (value - float(values.mean()))
    return float(np.clip(line, rewards.min(), np.median(rewards)))
