"""The tasks that come with the project, and which of them, with which recipes, train what a space makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from automl.child_trainers.recipes import EARLY_STOP, RECIPES, RULE_RECIPES

TASKS = {  # resolved on use, so that listing them imports no TensorFlow
    "digits": "automl.child_trainers.images.task:ImageClassification",
    "cifar10": "automl.child_trainers.images.task:ImageClassification",
    "npz": "automl.child_trainers.images.task:ImageClassification",
    "ptb": "automl.child_trainers.text.task:LanguageModeling",
    "pydoc": "automl.child_trainers.text.task:LanguageModeling",
    "text": "automl.child_trainers.text.task:LanguageModeling",
}

RULE_TASKS = {  # what the same names mean where update rules are sampled
    "digits": "automl.child_trainers.update_rules.task:ImageRules",
    "cifar10": "automl.child_trainers.update_rules.task:ImageRules",
    "npz": "automl.child_trainers.update_rules.task:ImageRules",
    "ptb": "automl.child_trainers.update_rules.task:TextRules",
    "pydoc": "automl.child_trainers.update_rules.task:TextRules",
    "text": "automl.child_trainers.update_rules.task:TextRules",
}

OF_FILES = ("npz", "text")  # written with the file's path, as in `npz:PATH`
DEFAULT_RECIPE: Mapping[str, dict[str, Any]] = {"default": {}}  # of a task of TASKS that has no entry in RECIPES


@dataclasses.dataclass(frozen=True)
class SpaceTasks:
    """The tasks that train what a space makes.

    Attributes:
        default: the task where the user names none; it needs no download.
        of_preset: the same for presets of the space that another one suits.
        presets: by task, the preset where the user names none and the space's first does not suit the task.
        tasks: import paths by name.
        recipes: constants by task and by recipe; the first is the default, the last the fullest.
        early_stop: by recipe, the pruner where the user names none; no early stopping with other recipes.
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
    "update-rule": SpaceTasks(tasks=RULE_TASKS, recipes=RULE_RECIPES, early_stop={}),  # rules end early by themselves
    "joint": SpaceTasks(of_preset={"cells": "pydoc"}, presets=dict.fromkeys(("ptb", "pydoc", "text"), "cells")),
}
OF_OTHER_SPACES = SpaceTasks()  # the user's own


def kind_of(name: str) -> str:
    """The task's name without the path of its file."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in OF_FILES else name


def tasks_of(space: str) -> Mapping[str, str]:
    """The tasks that train what a space makes, by name."""
    return _of(space).tasks


def recipes_of(space: str, task: str) -> Mapping[str, dict[str, Any]]:
    """The recipes of a task for what a space makes, by name; none of the user's own task."""
    of_space, kind = _of(space), kind_of(task)
    return of_space.recipes.get(kind, DEFAULT_RECIPE if kind in of_space.tasks else {})


def preset_of(space: str, task: str) -> str | None:
    """The preset of a space that goes with a task, where it is not the space's first."""
    return _of(space).presets.get(kind_of(task))


def default_task(space: str, preset: str | None) -> str:
    """The task that goes with a space and a preset; the digits for a space of the user's."""
    of_space = _of(space)
    return of_space.of_preset.get(preset or "", of_space.default)


def early_stop_of(space: str, recipe: str | None) -> str:
    """The pruner that goes with a recipe."""
    return _of(space).early_stop.get(recipe or "", "none")


def _of(space: str) -> SpaceTasks:
    return OF_SPACES.get(space, OF_OTHER_SPACES)
