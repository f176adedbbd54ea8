"""The user's function as a task."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from automl.child_trainers.outcome import Goal, Outcome, read_outcome
from automl.child_trainers.seeding import LIBRARIES, Seeder
from automl.child_trainers.task import Objective, Report, Task

PARAMETERS = ("spec", "seed", "epochs", "report")


class FunctionTask(Task):
    """The user's function as a task.

    The function may declare any of `spec`, `seed`, `epochs` and `report`. If no `epochs` are given, the function's own
    default applies. The function returns the reward as one number, or a dict with `reward`; with a goal, it returns a
    dict with the goal's metric.

    Args:
        goal: the metric to use as the reward; None is the reward that the function returns.
        epochs: the value of the function's parameter `epochs`, or None for its default.
        uses: libraries that the function is known to use; others are seeded when a child imports them.
        importing: a context in which imports find the modules beside the function's file.

    Attributes:
        takes_epochs: whether the function has the parameter `epochs`.
        needs_epochs: whether the parameter `epochs` has no default.

    Raises:
        ValueError: the function requires a parameter that no task receives.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        goal: Goal | None = None,
        epochs: int | None = None,
        uses: Iterable[str] = LIBRARIES,
        importing: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        if not callable(function):
            raise ValueError(f"A task must be a function, got {function!r}.")
        self._function = function
        self._goal = goal
        self._epochs = epochs
        if epochs is not None:
            metric = "reward" if goal is None else goal.metric
            self.objective = Objective(metric, goal is None or not goal.minimize, epochs)
        self._seeder = Seeder(uses)
        self._importing = importing
        parameters = inspect.signature(function).parameters.values()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        unknown = [
            parameter.name
            for parameter in parameters
            if parameter.name not in PARAMETERS
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        if unknown:
            name = getattr(function, "__name__", "the function")
            raise ValueError(f"{name} requires {unknown[0]!r}; a task can have the parameters {', '.join(PARAMETERS)}.")
        required = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
        declared = {parameter.name for parameter in parameters}
        self._passed = [name for name in PARAMETERS if takes_any or name in declared]
        self.takes_epochs = "epochs" in self._passed
        self.needs_epochs = "epochs" in required
        if epochs is None and "epochs" not in required:
            self._passed = [name for name in self._passed if name != "epochs"]

    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        offered = {"spec": spec, "seed": seed, "epochs": self._epochs, "report": report}
        # Restores the current folder, which a child may change.
        with contextlib.chdir("."), self._importing(), self._seeder.begin(seed):
            returned = self._function(**{name: offered[name] for name in self._passed})
        return read_outcome(returned, self._goal)
