"""The user's own task: a function, or a subclass of `Task`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.outcome import Goal, Outcome, read_outcome
from automl.child_trainers.seeding import LIBRARIES, Seeder
from automl.child_trainers.task import Report, Task
from automl.search_spaces.narrowing import nearest_first

if TYPE_CHECKING:
    import keras

Importing = Callable[[], contextlib.AbstractContextManager[None]]


def make_own_task(
    function_or_class: Callable[..., Any],
    *,
    goal: Goal | None,
    options: Mapping[str, Any],
    uses: Iterable[str] = LIBRARIES,
    importing: Importing = contextlib.nullcontext,
) -> Task:
    """Makes the task of a user's function, or of a subclass of `Task` whose constructor takes the options.

    Args:
        goal: the metric to use as the reward, or None.
        options: for a function, only `epochs`; for a class, the arguments of its constructor.
        uses: libraries that the code is known to use; others are seeded when a child imports them.
        importing: a context in which imports find the modules beside the code's file.

    Raises:
        ValueError: an option is missing or has no effect, the goal has no effect, or the class lacks `evaluate`.
    """
    if isinstance(function_or_class, type) and issubclass(function_or_class, Task):
        return _of_class(function_or_class, goal, options, Seeder(uses), importing)
    unknown = [name for name in options if name != "epochs"]
    if unknown:
        raise ValueError(f"A task of your own takes only task.epochs, not task.{unknown[0]}.")
    return FunctionTask(function_or_class, goal=goal, epochs=options.get("epochs"), uses=uses, importing=importing)


def _of_class(
    kind: type[Task], goal: Goal | None, options: Mapping[str, Any], seeder: Seeder, importing: Importing
) -> Task:
    name = kind.__name__
    if inspect.isabstract(kind):
        raise ValueError(f"The class {name} has no method evaluate(self, spec, *, seed, report); add it.")
    if goal is not None:
        raise ValueError(
            f"{goal} has no effect on the task {name}: its method evaluate chooses the reward, in the Outcome that it "
            "returns; drop the flag, or change evaluate."
        )
    _check_options(kind, options)

    class Own(kind):  # type: ignore[valid-type, misc]
        """The user's class. Imports find the modules beside its file, and each child has seeded random generators."""

        def prepare(self) -> None:
            with importing():
                super().prepare()

        def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
            with contextlib.chdir("."), importing(), seeder.begin(seed):
                return read_outcome(super().evaluate(spec, seed=seed, report=report))

        def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
            with importing():
                return super().model(spec, weights)

    Own.__name__, Own.__qualname__, Own.__module__ = name, kind.__qualname__, kind.__module__
    with importing():
        made: Task = Own(**options)
    return made


def _check_options(kind: type[Task], options: Mapping[str, Any]) -> None:
    """Raises ValueError if the constructor does not take an option, or requires an option that was not given."""
    parameters = [
        parameter
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
    ]
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    for option in options:
        if option not in names and len(names) == len(parameters):
            listed = nearest_first(option, names) or "none"
            raise ValueError(f"There is no task option called {option!r}; there is {listed}.")
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if needed and parameter.name not in options:
            raise ValueError(
                f"The task {kind.__name__} requires {parameter.name!r}; give it a default, or a value with --set "
                f"task.{parameter.name}=VALUE."
            )
