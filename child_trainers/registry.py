"""The built-in tasks, and the tasks and recipes of each space."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Mapping
from typing import Any

from automl.child_trainers.recipes import EARLY_STOP, RECIPES, RULE_RECIPES
from automl.search_spaces import DEFAULT_SPACE

NETWORK_TASKS = {  # resolved on use, so that listing them imports no TensorFlow
    "digits": "automl.child_trainers.images.task:ImageClassification",
    "cifar10": "automl.child_trainers.images.task:ImageClassification",
    "npz": "automl.child_trainers.images.task:ImageClassification",
    "ptb": "automl.child_trainers.text.task:LanguageModeling",
    "pydoc": "automl.child_trainers.text.task:LanguageModeling",
    "text": "automl.child_trainers.text.task:LanguageModeling",
}

SCORING_TASKS = {  # tasks that know the reward of a child and train nothing
    "table": "automl.child_trainers.tables.task:TableLookup",
    "synthetic": "automl.child_trainers.landscapes.task:SyntheticLandscape",
}

TASKS = NETWORK_TASKS | SCORING_TASKS

RULE_TASKS = SCORING_TASKS | {  # the tasks of these names for the space of update rules
    "digits": "automl.child_trainers.update_rules.task:ImageRules",
    "cifar10": "automl.child_trainers.update_rules.task:ImageRules",
    "npz": "automl.child_trainers.update_rules.task:ImageRules",
    "ptb": "automl.child_trainers.update_rules.task:TextRules",
    "pydoc": "automl.child_trainers.update_rules.task:TextRules",
    "text": "automl.child_trainers.update_rules.task:TextRules",
}

FILE_TASKS = ("npz", "text", "table")  # written with the file's path, as in `npz:PATH`
DATA_DIR_TASKS = ("cifar10", "ptb", "table:nas-bench-macro")  # tasks whose data are in --data-dir
DEFAULT_RECIPE: Mapping[str, dict[str, Any]] = {"default": {}}  # for a task of TASKS without an entry in RECIPES


@dataclasses.dataclass(frozen=True)
class SpaceTasks:
    """The tasks for the children of a space.

    Attributes:
        default: the task if the user names none; it needs no download.
        of_preset: the same by preset, for presets that need another task.
        presets: by task, the preset if the user names none and the space's first preset does not suit the task.
        tasks: import paths by name.
        recipes: constants by task and recipe; the first recipe is the default, the last trains longest.
        early_stop: by recipe, the pruner if the user names none; other recipes have no early stopping.
    """

    default: str = "digits"
    of_preset: Mapping[str, str] = dataclasses.field(default_factory=dict)
    presets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, str] = dataclasses.field(default_factory=lambda: TASKS)
    recipes: Mapping[str, Mapping[str, dict[str, Any]]] = dataclasses.field(default_factory=lambda: RECIPES)
    early_stop: Mapping[str, str] = dataclasses.field(default_factory=lambda: EARLY_STOP)


OF_SPACES: dict[str, SpaceTasks] = {
    "convnet": SpaceTasks(),
    "recurrent-cell": SpaceTasks(default="pydoc"),
    "update-rule": SpaceTasks(tasks=RULE_TASKS, recipes=RULE_RECIPES, early_stop={}),  # screening rejects bad rules
    "table-row": SpaceTasks(default="table"),
    "landscape": SpaceTasks(default="synthetic"),
    "joint": SpaceTasks(of_preset={"cells": "pydoc"}, presets=dict.fromkeys(("ptb", "pydoc", "text"), "cells")),
}
USER_SPACES = SpaceTasks()


@dataclasses.dataclass(frozen=True)
class TaskSpace:
    """The space that comes with a task.

    Attributes:
        space: its name.
        options: import path of the function that finds the options of the space in the data of the task.
    """

    space: str
    options: str


TASK_SPACES: Mapping[str, TaskSpace] = {
    "table": TaskSpace("table-row", "automl.child_trainers.tables.task:table_columns"),
}


def kind_of(name: str) -> str:
    """The task's name without the path of its file."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in FILE_TASKS else name


def path_of(name: str) -> str | None:
    """The path of the task's file, as the user wrote it; None for a task without one, or with data in --data-dir."""
    kind = kind_of(name)
    return None if kind == name or name in DATA_DIR_TASKS else name.removeprefix(f"{kind}:")


def default_space(task: str | None) -> str:
    """The space of a search of a task, if the user names none."""
    of_task = TASK_SPACES.get(kind_of(task or ""))
    return DEFAULT_SPACE if of_task is None else of_task.space


def space_options(space: str, task: str, options: Mapping[str, Any], **data: Any) -> dict[str, Any]:
    """The options of a space that are in the data of the task; empty for other spaces and tasks.

    Args:
        options: of the task.
        data: `data_dir` and `goal`, as for the task.

    Raises:
        ValueError: the data cannot be read.
    """
    of_task = TASK_SPACES.get(kind_of(task))
    if of_task is None or of_task.space != space:
        return {}
    found: dict[str, Any] = pkgutil.resolve_name(of_task.options)(task, options, **data)
    return found


def tasks_of(space: str) -> Mapping[str, str]:
    """Import paths of the tasks of a space, by name."""
    return _of(space).tasks


def recipes_of(space: str, task: str) -> Mapping[str, dict[str, Any]]:
    """The recipes of a task for a space, by name; empty for a user's own task."""
    of_space, kind = _of(space), kind_of(task)
    return of_space.recipes.get(kind, DEFAULT_RECIPE if kind in of_space.tasks else {})


def preset_of(space: str, task: str) -> str | None:
    """The preset of a space that suits a task; None for the space's first preset."""
    return _of(space).presets.get(kind_of(task))


def default_task(space: str, preset: str | None) -> str:
    """The default task of a space and a preset; `digits` for a user's own space."""
    of_space = _of(space)
    return of_space.of_preset.get(preset or "", of_space.default)


def early_stop_of(space: str, recipe: str | None) -> str:
    """The default pruner of a recipe; `none` for no early stopping."""
    return _of(space).early_stop.get(recipe or "", "none")


def _of(space: str) -> SpaceTasks:
    return OF_SPACES.get(space, USER_SPACES)
