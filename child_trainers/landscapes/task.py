"""The task of synthetic landscapes: the reward of a child is the value of a known function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from automl.child_trainers.landscapes.functions import Landscape, make_landscape
from automl.child_trainers.landscapes.streams import Stream
from automl.child_trainers.outcome import Goal, Outcome
from automl.child_trainers.recipe_checks import is_number
from automl.child_trainers.task import Report, Task
from automl.search_spaces.landscape.space import Point


@dataclasses.dataclass(frozen=True)
class LandscapeRecipe:
    """The instance of a landscape, and its noise.

    Attributes:
        instance: chooses the random effects of the landscape, 0 or more.
        noise: standard deviation of the noise on the reward; None is the landscape's own.
    """

    instance: int = 0
    noise: float | None = None

    def __post_init__(self) -> None:
        if type(self.instance) is not int or not 0 <= self.instance < 2**63:
            raise ValueError(f"task.instance is {self.instance!r}; it must be a whole number, 0 or more.")
        if self.noise is not None and not (is_number(self.noise) and self.noise >= 0):
            raise ValueError(f"task.noise is {self.noise!r}; it must be a number, 0 or more, or null.")


class SyntheticLandscape(Task):
    """Evaluates children of the space `landscape`; nothing is trained.

    The reward is the value of a child, plus noise. The noise is a function of the child's seed, so a repeated search
    has the same rewards. The metric `value` has no noise.
    """

    recipe_kind = LandscapeRecipe
    metric = noiseless = "value"
    reward_words = "the value of the landscape"
    ignores_compute = "a synthetic landscape, which trains nothing"
    fixed_options = ("instance", "noise")

    def __init__(self, name: str, recipe: LandscapeRecipe, *, goal: Goal | None = None, **others: Any) -> None:
        self.name = name
        self.recipe = recipe
        self._goal = goal

    def check(self, spec: object) -> None:
        if not isinstance(spec, Point):
            raise ValueError(
                f"The task {self.name} evaluates points of synthetic landscapes, and this space makes "
                f"{type(spec).__name__}; choose the space landscape, or another task."
            )

    def check_goal(self) -> None:
        if self._goal is not None:
            raise ValueError(f"The reward of a synthetic landscape is its value; drop {self._goal}.")

    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        self.check(spec)
        assert isinstance(spec, Point)
        landscape = self._landscape(spec)
        value = landscape.value(spec.values)
        noise = landscape.noise if self.recipe.noise is None else self.recipe.noise
        if not noise:
            return Outcome(value, {"value": value})
        drawn = float(Stream(self.recipe.instance, seed).normal(1)[0])
        return Outcome(value + noise * drawn, {"value": value})

    def optimum(self, spec: object, admits: Callable[[Mapping[str, Any]], bool] | None = None) -> float | None:
        """Of the whole landscape; the optimum of a part of it is not known."""
        if not isinstance(spec, Point) or admits is not None:
            return None
        value, _ = self._landscape(spec).optimum
        return value

    def constants(self) -> dict[str, Any]:
        return dataclasses.asdict(self.recipe)

    def describe(self) -> dict[str, Any]:
        return {"data": self.name} | self.constants()

    def _landscape(self, spec: Point) -> Landscape:
        return make_landscape(spec.landscape, self.recipe.instance)
