"""Makes a search's space and task from its stored settings. The coordinator and every worker make equal ones."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pkgutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.devices import Compute
from automl.child_trainers.outcome import Goal
from automl.child_trainers.own_task import make_own_task
from automl.child_trainers.registry import kind_of, recipes_of, tasks_of
from automl.child_trainers.task import Task
from automl.child_trainers.user_files import UserFile
from automl.search_spaces import PRESETS, SCHEDULES, SPACES
from automl.search_spaces.names import validate_choice
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.ordering import Ordering, ordered
from automl.search_spaces.space import Space
from automl.search_spaces.spec import Versioned

SESSION = "session:"  # prefix of the name of a function that only one process has
UserCallables = Mapping[str, Callable[..., Any]]
NO_USER_CALLABLES: UserCallables = {}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The space to sample from, and the task that trains and scores a sample."""

    space: Space
    task: Task


def make_experiment(
    settings: Mapping[str, Any],
    *,
    user_callables: UserCallables = NO_USER_CALLABLES,
    progress: Any = None,
    download: bool = True,
) -> Experiment:
    """The space and the task of a search's settings.

    Args:
        user_callables: by `space` and `task`, the user's functions or classes that only this process has.
        progress: called with the bytes received and the total bytes while data are downloaded.
        download: whether missing data may be downloaded to the data folder.

    Raises:
        ValueError: a name, preset, option or value is unknown or wrong. The message lists the known ones, nearest
            first.
        UserFileError: the user's file is missing, changed, or has no such attribute.
    """
    return Experiment(
        make_space(settings, user_callables=user_callables),
        make_task(settings, user_callables=user_callables, progress=progress, download=download),
    )


def make_space(settings: Mapping[str, Any], *, user_callables: UserCallables = NO_USER_CALLABLES) -> Space:
    chosen = settings["space"]
    file = UserFile.from_json(chosen["file"])
    options = dict(chosen["options"])
    function = session_callable("space", chosen["name"], user_callables)
    if function is not None or file is not None:
        if chosen["preset"] is not None:
            raise ValueError(f"A space of your own has no presets; drop the preset {chosen['preset']!r}.")
        if file is not None:
            function = file.load()
    else:
        name = validate_choice("space", chosen["name"], SPACES)
        function = pkgutil.resolve_name(SPACES[name])
        presets = pkgutil.resolve_name(PRESETS[name])
        options = presets[validate_choice("preset", chosen["preset"] or next(iter(presets)), presets)] | options
    assert function is not None
    _check_options(chosen["name"], function, options)
    narrowing = settings["narrowing"]
    rules = [parse_rule(text, fix=True) for text in narrowing["fix"]]
    rules += [parse_rule(text, fix=False) for text in narrowing["only"]]
    schedule = None
    if (schedule_name := settings["schedule"]) is not None:
        schedules = pkgutil.resolve_name(SCHEDULES[chosen["name"]]) if chosen["name"] in SCHEDULES else {}
        schedule = schedules[validate_choice("schedule", schedule_name, schedules)]
    made: Callable[[], Any] = functools.partial(function, **options)
    if chosen.get("order"):  # of the options, after the user's file was changed
        made = ordered(made, Ordering.from_json(chosen["order"]))
    space = Space(_with_behaviour(made, Behaviour.of_settings(settings)), Narrowing(tuple(rules)), schedule)
    space.check()
    return space


def _with_behaviour(function: Callable[[], Any], behaviour: Behaviour) -> Callable[[], Any]:
    """The space's function, whose specs have the behaviour of the search."""
    if behaviour == Behaviour():
        return function
    versions = dataclasses.asdict(behaviour)

    def kept(generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        spec = yield from generator
        ours = type(spec).__module__.startswith("automl.search_spaces.")
        return spec.with_behaviour(versions) if ours and isinstance(spec, Versioned) else spec

    def make() -> Any:
        generator = function()
        return kept(generator) if isinstance(generator, Generator) else generator  # `Walk` refuses other values

    return make


def _check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ValueError if the space's function does not take an option, or requires an option that was not given."""
    parameters = inspect.signature(function).parameters.values()
    named = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for option in options:
            validate_choice("space option", option, [parameter.name for parameter in named])
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise ValueError(
                f"The space {name} requires {parameter.name!r}; give it a default, or a value with --set "
                f"space.{parameter.name}=VALUE."
            )


def session_callable(group: str, name: str, user_callables: UserCallables) -> Callable[..., Any] | None:
    """The user's function or class of this Python session for a search's space, task or controller; None if the name
    means no such function.

    Args:
        group: `space`, `task` or `controller`.

    Raises:
        ValueError: this process was not given the function or class.
    """
    if not name.startswith(SESSION):
        return None
    if group not in user_callables:
        kind = "class" if group == "controller" else "function"
        raise ValueError(
            f"The {group} of this search is {name.removeprefix(SESSION)}, a {kind} of a Python session; go on there "
            f"with automl.resume(NAME, {group}=…)."
        )
    return user_callables[group]


def make_task(
    settings: Mapping[str, Any],
    *,
    user_callables: UserCallables = NO_USER_CALLABLES,
    progress: Any = None,
    download: bool = True,
) -> Task:
    behaviour = Behaviour.of_settings(settings)
    chosen = settings["task"]
    goal = None if chosen["goal"] is None else Goal(**chosen["goal"])
    function = session_callable("task", chosen["name"], user_callables)
    file = UserFile.from_json(chosen["file"])
    if function is not None or file is not None:
        if chosen["recipe"] is not None:
            raise ValueError(f"A task of your own has no recipes; drop the recipe {chosen['recipe']!r}.")
        if file is None:
            assert function is not None
            return make_own_task(function, goal=goal, options=chosen["options"])
        return make_own_task(
            file.load(), goal=goal, options=chosen["options"], uses=file.uses, importing=file.importing
        )
    name = chosen["name"]
    space = settings["space"]["name"]
    tasks, recipes = tasks_of(space), recipes_of(space, name)
    make = pkgutil.resolve_name(tasks[validate_choice("task", kind_of(name), tasks)])
    constants = (
        chosen.get("constants") or recipes[validate_choice("recipe", chosen["recipe"] or next(iter(recipes)), recipes)]
    )
    fields = [field.name for field in dataclasses.fields(make.recipe_kind)]
    for option in chosen["options"]:
        validate_choice("task option", option, fields)
    for constant in constants:
        validate_choice("constant of training", constant, fields)  # a store may name any constant
    recipe = make.recipe_kind(**(constants | chosen["options"]))
    data_dir = None if chosen["data_dir"] is None else Path(chosen["data_dir"])
    compute = Compute(**settings["compute"])
    task: Task = make(
        name,
        recipe,
        data_dir=data_dir,
        goal=goal,
        progress=progress,
        compute=compute,
        behaviour=behaviour,
        fingerprint=chosen.get("fingerprint"),
        **({} if chosen.get("brightness") is None else {"brightness": chosen["brightness"]}),
        reading=chosen.get("reading"),
        download=download,
    )
    return task


def reward_definition(settings: Mapping[str, Any]) -> str:
    """Describes a search's reward without running a user's file."""
    chosen = settings["task"]
    if chosen["goal"] is not None:
        return Goal(**chosen["goal"]).words
    if chosen["file"] is not None or chosen["name"].startswith(SESSION):
        return Task.reward_words
    tasks = tasks_of(settings["space"]["name"])
    kind: type[Task] = pkgutil.resolve_name(tasks[validate_choice("task", kind_of(chosen["name"]), tasks)])
    return kind.reward_words
