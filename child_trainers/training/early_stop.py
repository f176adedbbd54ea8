"""Stops children that promise little between two epochs, and says what a stopped child is worth."""

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

FIRST_CHILDREN = 8  # that are trained to their end before any is stopped
REDUCTION = 3  # successive halving lets one in so many go on


class EarlyStopError(Exception):
    """Raised into a child at the end of the epoch that is its last, for good or for now."""

    def __init__(self, epoch: int, *, paused: bool = False) -> None:
        super().__init__(f"It was {'paused' if paused else 'stopped'} after epoch {epoch}.")
        self.epoch = epoch
        self.paused = paused


class Stopper(abc.ABC):
    """Judges the children of one worker, one after the other, against all that the store knows.

    A stopped child counts as trained, with a predicted reward; the store keeps its last epoch as `stopped_at`.

    Args:
        objective: the metric of every epoch that tells good children from bad ones.
    """

    pauses = False  # whether stopped children may go on later, from their checkpoint

    def __init__(self, store: Store, search_id: int, *, objective: Objective) -> None:
        self._store = store
        self._search_id = search_id
        self._metric = objective.metric
        self._maximize = objective.maximize
        self._epochs = objective.epochs
        self._known: dict[int, Curve] = {}
        self._looked = 0.0  # by the store's clock
        self._values: dict[int, float] = {}
        self._passed = 0

    def warm_up(self) -> None:
        """Imports what is slow."""
        return

    def begin(self, number: int, *, passed: int = 0) -> None:
        """The child of this number is about to be trained; the one before comes back from the store.

        Args:
            passed: the last epoch of an earlier attempt at this child. Epochs up to it were judged then, and are not
                judged again, even if they are trained again.
        """
        self._look()
        self._values = {}
        self._passed = passed

    def report(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Raises EarlyStopError where the child is to be pruned after this epoch, which is not its last."""
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
        """Takes the metrics of an epoch of an earlier attempt without judging the child."""
        if self._metric in metrics and epoch < self._epochs:
            self._values[epoch] = float(metrics[self._metric])
            self._restored(epoch)

    def predicted_reward(self) -> float:
        """What the present child, just stopped, would have been worth."""
        epoch = max(self._values)
        return predict_reward(self._values[epoch], self._finished_pairs(epoch))

    def to_continue(self) -> list[int]:
        """The numbers of paused children that deserve to go on, the most deserving first."""
        return []

    @abc.abstractmethod
    def _should_prune(self, epoch: int) -> bool:
        """Whether the present child is, told by its values up to this epoch."""

    def _restored(self, epoch: int) -> None:
        """Called for an epoch of an earlier attempt at the present child."""
        return

    def _met(self, curve: Curve) -> None:
        """A child that has ended was read from the store for the first time."""
        return

    def _look(self) -> None:
        """Reads the children that have ended since the last look."""
        now = self._store.now()
        newest = max((curve.finished for curve in self._known.values()), default=0.0)
        # Where the clock was set back, those that ended since are older than others that are known.
        since = min(newest, self._looked) if now >= self._looked else 0.0
        self._looked = now
        for curve in self._store.curves(self._search_id, self._metric, finished_since=since):
            if curve.values and self._known.get(curve.number) != curve:
                new = curve.number not in self._known
                self._known[curve.number] = curve  # again, where a paused one has gone on
                if new:
                    self._met(curve)

    def _finished_pairs(self, epoch: int) -> list[tuple[float, float]]:
        """(value at an epoch, final reward) of the children that were trained to their end."""
        return [
            (curve.values[epoch], curve.reward)
            for curve in self._known.values()
            if not curve.stopped and epoch in curve.values
        ]


class EarlyStopper(Stopper):
    """Asks one of Optuna's pruners.

    Children that have ended are replayed into an in-memory study, each once; other running children are not looked at.
    `median` stops a child whose best value so far is below the median of all others that came to the same epoch;
    `hyperband` is Li et al. 2018 (arXiv:1603.06560) as Optuna has it.

    Args:
        pruner: `median` or `hyperband`.
    """

    def __init__(self, store: Store, search_id: int, pruner: str, *, objective: Objective) -> None:
        super().__init__(store, search_id, objective=objective)
        self._pruner = pruner
        self._trial: optuna.Trial | None = None  # the present child's
        self._number = -1

    def warm_up(self) -> None:
        _ = self._study

    def begin(self, number: int, *, passed: int = 0) -> None:
        from optuna.trial import TrialState

        super().begin(number, passed=passed)
        if self._trial is not None:  # one that failed, and is not among the trained
            self._study.tell(self._trial, state=TrialState.FAIL)
        self._trial, self._number = self._study.ask(), number

    @functools.cached_property
    def _study(self) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner: optuna.pruners.BasePruner
        if self._pruner == "median":
            # The first epoch is left alone: learning rates are high there and values noisy.
            pruner = optuna.pruners.MedianPruner(FIRST_CHILDREN, n_warmup_steps=2, n_min_trials=FIRST_CHILDREN)
        else:
            pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=self._epochs)
        return optuna.create_study(
            study_name=f"search {self._search_id}",  # Hyperband chooses a child's bracket by it
            direction="maximize" if self._maximize else "minimize",
            pruner=pruner,
        )

    def _should_prune(self, epoch: int) -> bool:
        assert self._trial is not None
        self._trial.report(self._values[epoch], epoch)
        return self._trial.should_prune()

    def _restored(self, epoch: int) -> None:
        self._should_prune(epoch)  # lets the pruner record the value and the rung; its verdict is ignored

    def _met(self, curve: Curve) -> None:
        """Reports a child's values one by one, as the pruner would have met them."""
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
                trial.should_prune()  # it notes at which of its rungs the child was
        if curve.stopped and self._pruner == "hyperband":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            # Optuna's median is one of completed trials. Were it one of the survivors alone, it would rise with every
            # child that is stopped; so those count as well, at the epochs that they came to.
            self._study.tell(trial, curve.values[max(curve.values)])


class SuccessiveHalving(Stopper):
    """Pauses children at rungs, and lets the best third of each rung go on, whenever they turn out to be among it.

    Rungs are a third, a ninth, … of the epochs. A paused child keeps its checkpoint, and goes on before a new one
    is begun once enough worse ones have come to its rung. The controller learns from the reward that was predicted when
    the child was paused; the store gets the real one.

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
        self._look()
        numbers = []
        for rung in reversed(self.rungs):
            least = self._least_to_go_on(self._at(rung))
            waiting = [
                (self._sign * curve.values[rung], -curve.number)
                for curve in self._known.values()
                if curve.stopped and max(curve.values) == rung
            ]
            numbers += [-number for value, number in sorted(waiting, reverse=True) if value >= least]
        return numbers

    def _should_prune(self, epoch: int) -> bool:
        if epoch not in self.rungs:
            return False
        value = self._sign * self._values[epoch]
        return value < self._least_to_go_on([*self._at(epoch), value])

    @property
    def _sign(self) -> float:
        return 1.0 if self._maximize else -1.0

    def _at(self, rung: int) -> list[float]:
        """What the children that have ended or paused had at a rung; more is better."""
        return [self._sign * curve.values[rung] for curve in self._known.values() if rung in curve.values]

    @staticmethod
    def _least_to_go_on(values: Sequence[float]) -> float:
        """The last of the best third."""
        count = len(values) // REDUCTION
        return sorted(values, reverse=True)[count - 1] if count else math.inf


def make_stopper(kind: str, store: Store, search_id: int, objective: Objective | None) -> Stopper | None:
    """The stopper of a search, or None where children are always trained to their end."""
    if kind == "none" or objective is None:
        return None
    if kind == "asha":
        return SuccessiveHalving(store, search_id, objective=objective)
    return EarlyStopper(store, search_id, kind, objective=objective)


def predict_reward(value: float, finished: Sequence[tuple[float, float]]) -> float:
    """The final reward of a child from its value at an epoch, told by (value at that epoch, final reward) of others.

    The least-squares line through them, kept between the lowest and the median of their rewards: a child is stopped for
    being worse than others, so it must never be told to be better than half of them; nor worse than any that was seen
    to its end, which nobody knows.
    """
    values, rewards = (np.array(column, np.float64) for column in zip(*finished, strict=True))
    spread = float(np.var(values))
    slope = float(np.mean((values - values.mean()) * (rewards - rewards.mean()))) / spread if spread > 0 else 0.0
    line = float(rewards.mean()) + slope * (value - float(values.mean()))
    return float(np.clip(line, rewards.min(), np.median(rewards)))
