"""The settings that are stored with a search: how they are made, completed and changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.devices import default_precision
from automl.child_trainers.experiment import SESSION
from automl.child_trainers.gpus import visible_gpus
from automl.child_trainers.outcome import Goal
from automl.child_trainers.registry import (
    DATA_DIR_TASKS,
    FILE_TASKS,
    TASKS,
    early_stop_of,
    kind_of,
    preset_of,
    recipes_of,
    space_options,
)
from automl.child_trainers.user_files import UserFile, suggested_reference
from automl.controllers import CONTROLLERS
from automl.search_spaces import SPACES
from automl.search_spaces.names import validate_choice
from automl.settings.parsing import parse_options
from automl.settings.schema import AUTO, SearchConfig, goal_of
from automl.settings.stored_form import check_settings
from automl.surroundings import check_workdir, current_folder

ADDED_LATER: dict[str, Any] = {
    "behaviour": dataclasses.asdict(Behaviour.of_settings({})),
    "compute": {"precision": "float32", "xla": False, "devices": 1},
    "workers_per_gpu": 1,
    "workers_per_gpu_reason": None,
    "early_stop": "none",
    "worker_memory": None,
    "recycling": {"after": 1000, "growth": 2 * 10**9},
    "workdir": None,
}


def stored_settings(config: SearchConfig) -> dict[str, Any]:
    """The settings that make an experiment, as they are stored with the search.

    Raises:
        ValueError: a name is unknown, or an option has a wrong form. The message lists the known names.
    """
    options = parse_options(config.set)
    space, task = _name("space", config.chosen_space, SPACES), _task_name(config.chosen_task)
    goal, data_dir = goal_of(config.minimize, config.maximize), _data_dir(config.data_dir)
    of_data = space_options(
        space,
        task,
        options["task"],
        data_dir=None if data_dir is None else Path(data_dir),
        goal=None if goal is None else Goal(**goal),
    )
    return {
        "space": {
            "name": space,
            "preset": config.preset or preset_of(space, config.chosen_task),
            "options": of_data | options["space"],
            "file": _file(space),
        },
        "narrowing": {"fix": list(config.fix), "only": list(config.only)},
        "schedule": config.schedule,
        "limits": {"params": config.max_params, "flops": config.max_flops},
        "task": {
            "name": task,
            "recipe": config.recipe,
            "options": options["task"],
            "goal": goal,
            "file": _file(config.chosen_task),
            "data_dir": data_dir,
        },
        "controller": {
            "name": _name("controller", config.controller, CONTROLLERS),
            "preset": config.controller_preset,
            "options": options["controller"],
            "file": _file(config.controller),
        },
        "keep": config.keep,
        "stall": config.stall,
        "child_timeout": config.child_timeout,
        "worker_memory": config.worker_memory,
        "recycling": {"after": config.recycle_after, "growth": config.recycle_growth},
        "keep_going": config.keep_going,
        "early_stop": config.early_stop or _default_early_stop(config),
        "policy_device": config.policy_device,
        "behaviour": dataclasses.asdict(Behaviour()),
        # Fixed when the search begins: a child must be trained the same way wherever the search is resumed.
        "compute": {
            "precision": config.precision or default_precision(visible_gpus()),
            "xla": config.xla,
            "devices": config.gpus_per_child,
        },
        "workers_per_gpu": 1 if config.workers_per_gpu == AUTO else config.workers_per_gpu,  # until workers are planned
        "workers_per_gpu_reason": None,
        "workdir": current_folder() if config.workdir is None else check_workdir(config.workdir),
    }


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings. Those that an earlier version did not have are added, with the values by which it behaved.

    Raises:
        StoreError: they are not of the form that automl writes.
    """
    check_settings(settings)
    return {**ADDED_LATER, **settings}


def changeable_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Options that a resume may change, by group.

    Raises:
        ValueError: an option is of the space; stored tokens have a meaning only in the space as it is.
    """
    options = parse_options(texts)
    if options["space"]:
        name = next(iter(options["space"]))
        raise ValueError(f"space.{name} cannot be changed after a search has begun; start another search with it.")
    return {group: given for group, given in options.items() if given}


def with_data_dir(settings: dict[str, Any], given: str | None) -> dict[str, Any]:
    """Stored settings with the data folder of this start: the argument, else AUTOML_DATA, else the stored one."""
    folder = _data_dir(given) or settings["task"]["data_dir"]
    return {**settings, "task": {**settings["task"], "data_dir": folder}}


def may_download(settings: Mapping[str, Any], given: str | None) -> bool:
    """Whether missing data may be downloaded: not to a folder that only the store names."""
    return _data_dir(given) is not None or settings["task"]["data_dir"] is None


def _name(what: str, reference: str, names: Mapping[str, Any]) -> str:
    if UserFile.is_reference(reference) or reference.startswith(SESSION):
        return reference
    if reference not in names and (meant := suggested_reference(reference)) is not None:
        raise ValueError(f"There is no {what} called {reference!r}; for a function of your own write {meant}.")
    return validate_choice(what, reference, names)


def _task_name(reference: str) -> str:
    if reference in DATA_DIR_TASKS and kind_of(reference) != reference:
        return reference
    if reference in FILE_TASKS:
        raise ValueError(f"The task {reference} needs a file: write {reference}:PATH.")
    if (kind := kind_of(reference)) != reference:
        path = Path(os.path.expanduser(reference.removeprefix(f"{kind}:"))).absolute()
        return f"{kind}:{path}"
    return _name("task", reference, TASKS)


def _default_early_stop(config: SearchConfig) -> str:
    recipe = config.recipe or next(iter(recipes_of(config.chosen_space, config.chosen_task)), None)
    return early_stop_of(config.chosen_space, recipe)


def _file(reference: str) -> dict[str, str] | None:
    return UserFile.read(reference).to_json() if UserFile.is_reference(reference) else None


def _data_dir(given: str | None) -> str | None:
    chosen = given or os.environ.get("AUTOML_DATA")
    return str(Path(os.path.expanduser(chosen)).absolute()) if chosen else None
