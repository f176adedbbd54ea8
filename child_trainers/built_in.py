"""The base class of tasks on data that automl provides or that the user has in a file."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.devices import FLOAT32, Compute
from automl.child_trainers.outcome import DivergedError, Goal, Outcome
from automl.child_trainers.recipes import OPTIMIZER_OPTIONS, LanguageRecipe, Recipe
from automl.child_trainers.task import Objective, Requirements, Task
from automl.search_spaces.spec import BringsOptimizer

if TYPE_CHECKING:
    import keras

NEWEST = Behaviour()
AnyRecipe = TypeVar("AnyRecipe", Recipe, LanguageRecipe)


class BuiltInTask(Task, Generic[AnyRecipe]):
    """Trains networks on a named data set.

    Args:
        name: the name of the data set, with the path for the user's file (`npz:PATH`).
        recipe: the constants of training.
        data_dir: the folder with data sets; None is the default of each data set.
        goal: the metric to use as the reward; None is the task's own reward.
        progress: called with the bytes received and the total bytes while data are downloaded.
        fingerprint: the fingerprint of the data with which the search began; other data are refused.
        compute: the precision, whether steps are compiled by XLA, and the number of devices per child.
        reading: how the search has read its data; see `Task.reading`.
        behaviour: the versions of computations; by default those of a new search.
        download: whether missing data may be downloaded to `data_dir`.

    Attributes:
        maximize: whether a higher value of the task's metric is better.
    """

    floor = 0.0
    ignores_compute = None
    uses_tensorflow = True
    maximize: ClassVar[bool]

    def __init__(
        self,
        name: str,
        recipe: AnyRecipe,
        *,
        data_dir: Path | None = None,
        goal: Goal | None = None,
        progress: Any = None,
        fingerprint: str | None = None,
        compute: Compute = FLOAT32,
        behaviour: Behaviour = NEWEST,
        reading: Mapping[str, Any] | None = None,
        download: bool = True,
    ) -> None:
        self.name = name
        self.recipe: AnyRecipe = recipe
        self._data_dir = data_dir
        self._goal = goal
        self._progress = progress
        self._download = download
        self._expected = fingerprint
        self._reading = reading
        self._compute = compute
        self._behaviour = behaviour
        metric, maximize = (self.metric, self.maximize) if goal is None else (goal.metric, not goal.minimize)
        self.objective = Objective(metric, maximize, recipe.epochs)
        if goal is not None:
            self.floor = None  # type: ignore[assignment]

    @property
    @abc.abstractmethod
    def data(self) -> Any:
        """The data on which children are trained, limited by the recipe. Raises DataError."""

    @property
    @abc.abstractmethod
    def device_data(self) -> Any:
        """`data` as tensors, shared by all children of a worker."""

    def prepare(self) -> None:
        _ = self.data

    @property
    @abc.abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The metrics of every epoch and every trained child; `metric` comes first. Each can be the goal."""

    def check_goal(self) -> None:
        if self._goal is not None and self._goal.metric not in self.metrics:
            raise ValueError(
                f"{self._goal}: the task {self.name} reports no metric {self._goal.metric!r} that can be the goal; it "
                f"has {' and '.join(self.metrics)}."
            )

    @property
    def requirements(self) -> Requirements:  # type: ignore[override]
        return Requirements(devices=self._compute.devices, exclusive=self._compute.devices > 1)

    def unused_options(self, spec: object) -> Mapping[str, str]:
        unused = self.recipe.unused_options()
        if isinstance(spec, BringsOptimizer):
            why = "on children of this space, which have their own update rule; drop it"
            unused |= dict.fromkeys(OPTIMIZER_OPTIONS, why)
        return unused

    def _optimizer_of(self, spec: object, steps_per_epoch: int, seed: int) -> keras.optimizers.Optimizer | None:
        """The child's own optimizer, or None if its spec has none."""
        if not isinstance(spec, BringsOptimizer):
            return None
        decay_steps = steps_per_epoch * self.recipe.epochs
        optimizer: keras.optimizers.Optimizer = spec.optimizer(decay_steps=decay_steps, seed=seed % 2**31)
        return optimizer

    def _result(self, train: Callable[[], Outcome], *, by_own_rule: bool, worst: float) -> Outcome:
        """Runs a training and returns its outcome. If a child's own update rule diverges, the child has a result and
        does not fail: its reward is 0.

        Args:
            by_own_rule: whether the child is trained with its own update rule.
            worst: the value of the metric for a diverged child.
        """
        try:
            return train()
        except DivergedError:
            if not by_own_rule or (self._goal is not None and self._goal.metric != self.metric):
                raise
            return Outcome(0.0, {self.metric: worst}, ending="diverged")

    def _refuse_missing(self, path: Path) -> None:
        """Raises DataError if the data of a stored search have moved."""
        if self._expected is not None and not os.path.isfile(path):
            kind = self.name.partition(":")[0]
            raise DataError(f"{path} is not there any more; say where these data are now with --data {kind}:PATH.")

    def warm_up(self) -> None:
        _ = self.device_data

    def constants(self) -> dict[str, Any]:
        return dataclasses.asdict(self.recipe)

    def describe(self) -> dict[str, Any]:
        compute = {"precision": self._compute.precision}
        if self._compute.xla:
            compute["xla"] = "on"
        if self._compute.devices > 1:
            compute["devices"] = str(self._compute.devices)
        return {"data": self.name} | self.constants() | compute
