"""The tables that say which tasks and recipes each space has, and what every task of them promises."""

import dataclasses
import pkgutil

import pytest

from automl.child_trainers.experiment import make_experiment
from automl.child_trainers.registry import (
    FILE_TASKS,
    OF_SPACES,
    SCORING_TASKS,
    TASKS,
    default_space,
    default_task,
    early_stop_of,
    preset_of,
    recipes_of,
    tasks_of,
)
from automl.child_trainers.task import Requirements, Source, Task
from automl.search_spaces import PRESETS, SPACES
from automl.settings.schema import SearchConfig
from automl.settings.stored import stored_settings

HERE = ("digits", "pydoc")  # tasks whose data need neither a file nor a download
SCORED = ("table-row", "landscape")  # spaces whose children have a known reward, and no model


def presets(space: str) -> list[str]:
    return list(pkgutil.resolve_name(PRESETS[space]))


def test_every_space_has_its_tasks():
    assert OF_SPACES.keys() == SPACES.keys()


@pytest.mark.parametrize("space", SPACES)
def test_the_tables_of_a_space_fit_each_other(space):
    of_space = OF_SPACES[space]
    assert of_space.tasks.keys() == TASKS.keys()
    assert of_space.recipes.keys() <= of_space.tasks.keys()
    assert {of_space.default, *of_space.of_preset.values()} <= {*HERE, *SCORING_TASKS}
    assert of_space.of_preset.keys() | set(of_space.presets.values()) <= set(presets(space))
    for task, path in tasks_of(space).items():
        kind = pkgutil.resolve_name(path)
        assert issubclass(kind, Task)
        for recipe, constants in recipes_of(space, task).items():
            kind.recipe_kind(**constants)
            assert early_stop_of(space, recipe) in ("none", "median")


def test_the_user_s_own_space_has_the_tasks_of_networks():
    assert tasks_of("mine.py:space") is TASKS
    assert default_task("mine.py:space", None) == "digits"
    assert list(recipes_of("mine.py:space", "cifar10")) == ["quick", "paper"]
    assert (preset_of("mine.py:space", "ptb"), early_stop_of("mine.py:space", "quick")) == (None, "median")
    assert recipes_of("mine.py:space", "mine.py:task") == {}


def test_defaults_go_with_the_preset_and_presets_with_the_task():
    assert [default_task(space, None) for space in SPACES] == [
        "digits",
        "pydoc",
        "digits",
        "digits",
        "table",
        "synthetic",
    ]
    assert [default_space(task) for task in (None, "digits", "table:a.csv", "mine.py:task")] == [
        "convnet",
        "convnet",
        "table-row",
        "convnet",
    ]
    assert default_task("joint", "cells") == "pydoc"
    assert (preset_of("joint", "text:a.txt"), preset_of("joint", "digits"), preset_of("convnet", "ptb")) == (
        "cells",
        None,
        None,
    )
    assert early_stop_of("update-rule", "quick") == "none"


def test_a_task_without_recipes_has_a_default_one(monkeypatch):
    monkeypatch.setitem(TASKS, "mine", "mine:Mine")
    assert recipes_of("convnet", "mine") == {"default": {}}


@pytest.fixture(
    params=[
        (space, preset) for space in SPACES if space not in SCORED for preset in presets(space)[:1] + presets(space)[2:]
    ],
    ids=str,
)
def experiment(request):
    space, preset = request.param
    task = default_task(space, preset)
    assert task not in FILE_TASKS
    return make_experiment(stored_settings(SearchConfig(space=space, preset=preset, task=task, precision="float32")))


def test_a_task_fulfils_its_contract(experiment):
    task, spec = experiment.task, experiment.space.survey()[0].spec
    task.check(spec)
    assert task.requirements == Requirements(devices=1, exclusive=False)
    assert task.metric.startswith("val_") and task.has_model(spec)
    assert task.unused_options(spec).keys() <= {field.name for field in dataclasses.fields(task.recipe)} | {
        "momentum",
        "schedule",
        "decay",
        "steady_epochs",
    }
    assert task.constants() == dataclasses.asdict(task.recipe)
    source = task.source(spec, {"learning_rate": 0.5})
    assert (isinstance(source, Source) and "import keras" in source.text and source.description.endswith("source")) or (
        "its learning rate here was 0.5" in source.description
    )
    assert task.columns().startswith("column") or task.columns().startswith("the columns")
    assert task.same(0.5, 0.5) and not task.same(0.5, 0.6)


def test_a_task_of_a_function_makes_no_models():
    from automl.child_trainers.function_task import FunctionTask

    task = FunctionTask(lambda: 1.0)
    assert not task.has_model({}) and task.source({}) is None and task.test(len, {}) == {} and task.columns() == ""
    assert task.unused_options({}) == {} and task.requirements == Requirements()
    with pytest.raises(NotImplementedError, match="FunctionTask makes no model of a dict"):
        task.model({}, {})
    with pytest.raises(NotImplementedError, match="it needs a method validate"):
        task.validate(len, {})
