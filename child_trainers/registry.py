"""Tasks that come with the project."""

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

DEFAULTS = {  # of each space, or of one of its presets: one that needs no download
    "convnet": "digits",
    "recurrent-cell": "pydoc",
    "update-rule": "digits",
    "joint:cells": "pydoc",
}

PRESETS_FOR = {"joint": dict.fromkeys(("ptb", "pydoc", "text"), "cells")}  # tasks that the space's first does not suit


def kind_of(name: str) -> str:
    """The task's name without the path of its file."""
    kind, colon, _ = name.partition(":")
    return kind if colon and kind in OF_FILES else name


def tasks_of(space: str) -> Mapping[str, str]:
    """The tasks that train what a space makes, by name."""
    return RULE_TASKS if space == "update-rule" else TASKS


def recipes_of(space: str, task: str) -> Mapping[str, dict[str, Any]]:
    """The recipes of a task for what a space makes, by name; none of a person's own task."""
    recipes = RULE_RECIPES if space == "update-rule" else RECIPES
    return recipes.get(kind_of(task), {})


def preset_of(space: str, task: str) -> str | None:
    """The preset of a space that goes with a task, where it is not the space's first."""
    return PRESETS_FOR.get(space, {}).get(kind_of(task))


def default_task(space: str, preset: str | None) -> str:
    """The task that goes with a space and a preset; the digits for a space of a person's."""
    return DEFAULTS.get(f"{space}:{preset}", DEFAULTS.get(space, "digits"))


def early_stop_of(space: str, recipe: str | None) -> str:
    """The pruner that goes with a recipe; update rules end early by themselves."""
    return "none" if space == "update-rule" else EARLY_STOP.get(recipe or "", "none")
