import json
import subprocess
import sys

import numpy as np
import pytest

from automl.child_trainers.experiment import make_experiment, make_space, make_task
from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.recipes import DIGITS
from automl.child_trainers.user_files import UserFileError
from automl.child_trainers.workers.process import ROOT
from automl.search_spaces.decisions import Choice


def message(make, settings):
    with pytest.raises(ValueError) as caught:
        make(settings)
    return str(caught.value)


@pytest.fixture
def settings_of(settings_of):
    """With how children are trained, which only tasks of ours ask for."""
    return lambda **changes: settings_of(**{"compute": {"precision": "float32", "xla": False}} | changes)


@pytest.fixture
def mine(tmp_path):
    def write(text):
        path = tmp_path / "mine.py"
        path.write_text("from automl.search_spaces.decisions import Choice\n" + text)
        return str(path)

    return write


OWN = """
seen = []
def space(sizes=(1, 2), name="size"):
    return (yield Choice(name, sizes))
def task(spec, epochs=3):
    return {"reward": spec, "epochs": epochs}
"""


def test_unknown_names(settings_of):
    assert message(make_space, settings_of(space="convnets")) == (
        "There is no space called 'convnets'; there is convnet, joint, recurrent-cell, landscape, "
        "table-row, update-rule."
    )
    assert message(make_space, settings_of(space__preset="papers")) == (
        "There is no preset called 'papers'; there is paper, small."
    )
    assert message(make_task, settings_of(task="cifar")) == (
        "There is no task called 'cifar'; there is cifar10, pydoc, table, digits, synthetic, npz, ptb, text."
    )
    assert message(make_task, settings_of(task="cifar10", task__recipe="fast")) == (
        "There is no recipe called 'fast'; there is paper, quick."
    )
    assert message(make_task, settings_of(task__options={"epoch": 1})).startswith(
        "There is no task option called 'epoch'; there is epochs, "
    )
    assert message(make_space, settings_of(schedule="depths")) == (
        "There is no schedule called 'depths'; there is depth."
    )
    assert message(make_space, settings_of(space__options={"depth": [3]})).startswith(
        "There is no space option called 'depth'; there is depths, "
    )


def test_bad_values(settings_of):
    assert message(make_task, settings_of(task__options={"epochs": "many"})) == (
        "task.epochs is 'many'; it must be a whole number above 0."
    )
    assert message(make_space, settings_of(space__options={"depths": []})).startswith("depths is []; ")


def test_the_first_preset_and_recipe_are_the_default(settings_of):
    space = make_space(settings_of())
    assert space.walk(0).decision.options == (3, 4, 5, 6)
    assert make_space(settings_of(space__preset="paper")).walk(0).decision.options == (6, 8, 10, 12, 14, 16, 18, 20)
    assert make_task(settings_of()).recipe.epochs == 2
    assert make_task(settings_of(task="cifar10")).recipe.num_train == 4096
    assert make_task(settings_of(task="cifar10", task__recipe="paper")).recipe.num_train is None


def test_options_override_the_preset_and_the_recipe(settings_of):
    settings = settings_of(space__options={"depths": [4, 9]}, task__options={"epochs": 7, "augment": True})
    assert make_space(settings).walk(0).decision.options == (4, 9)
    recipe = make_task(settings).recipe
    assert (recipe.epochs, recipe.augment, recipe.batch_size) == (7, True, DIGITS["batch_size"])


def test_constants_that_were_stored_stand_for_those_of_the_recipe(settings_of):
    task = make_task(settings_of(task__options={"epochs": 7}))
    constants = json.loads(json.dumps(task.constants())) | {"batch_size": 48}
    again = make_task(settings_of(task__constants=constants, task__options={"num_train": 100})).recipe
    assert (again.epochs, again.batch_size, again.num_train) == (7, 48, 100)
    assert again.learning_rate == task.recipe.learning_rate


def test_narrowing(settings_of):
    settings = settings_of(narrowing={"fix": ["depth=4"], "only": ["layer*/filter_height=3,5"]})
    walk = make_space(settings).walk(0)
    assert walk.decision.forced == (1,)
    walk.answer((1,))
    assert walk.decision.allowed == (False, True, True)
    assert message(make_space, settings_of(narrowing={"fix": ["depth"], "only": []})).startswith("--fix 'depth' is not")
    assert "depth=99" in message(make_space, settings_of(narrowing={"fix": ["depth=99"], "only": []}))


def test_schedules_force_by_number(settings_of):
    space = make_space(settings_of(space__preset="paper", schedule="depth"))
    assert space.walk(0).decision.forced == (0,)
    assert space.walk(1600).decision.forced == (1,)
    assert "schedule does not fit" in message(make_space, settings_of(schedule="depth"))  # small has no depth 8
    narrowed = settings_of(space__preset="paper", schedule="depth", narrowing={"fix": ["depth=8"], "only": []})
    assert "set by the schedule" in message(make_space, narrowed)


def test_a_person_s_own_space_and_task(settings_of, mine):
    path = mine(OWN)
    experiment = make_experiment(
        settings_of(
            space=f"{path}:space", task=f"{path}:task", space__options={"sizes": [5, 6]}, task__options={"epochs": 9}
        )
    )
    assert experiment.space.decode([1]).spec == 6
    assert isinstance(experiment.task, FunctionTask)
    assert experiment.task.evaluate(6, seed=0, report=None).metrics == {"epochs": 9}
    assert make_task(settings_of(task=f"{path}:task")).evaluate(6, seed=0, report=None).metrics == {"epochs": 3}


def test_what_a_person_s_own_file_does_not_take(settings_of, mine):
    path = mine(OWN)
    assert message(make_task, settings_of(task=f"{path}:task", task__options={"momentum": 1})) == (
        "A task of your own takes only task.epochs, not task.momentum."
    )
    assert message(make_task, settings_of(task=f"{path}:task", task__recipe="paper")) == (
        "A task of your own has no recipes; drop the recipe 'paper'."
    )
    assert message(make_space, settings_of(space=f"{path}:space", space__preset="paper")) == (
        "A space of your own has no presets; drop the preset 'paper'."
    )
    assert message(make_space, settings_of(space=f"{path}:space", schedule="depth")) == (
        "There is no schedule called 'depth'; there is none."
    )
    assert message(make_space, settings_of(space=f"{path}:space", space__options={"size": 1})) == (
        "There is no space option called 'size'; there is sizes, name."
    )
    with pytest.raises(UserFileError, match="has no function 'spaces'; it has space, task"):
        make_space(settings_of(space=f"{path}:spaces"))


def test_an_own_space_with_a_parameter_that_nobody_gives(settings_of, mine):
    path = mine("def space(trial):\n    yield Choice('a', (1, trial))\n")
    assert message(make_space, settings_of(space=f"{path}:space")) == (
        f"The space {path}:space requires 'trial'; give it a default, or a value with --set space.trial=VALUE."
    )
    assert make_space(settings_of(space=f"{path}:space", space__options={"trial": 2})).walk(0).decision == Choice(
        "a", (1, 2)
    )


def test_an_own_space_may_take_any_option(settings_of, mine):
    path = mine("def space(**options):\n    yield Choice('a', tuple(options))\n")
    assert make_space(settings_of(space=f"{path}:space", space__options={"x": 1, "y": 2})).walk(0).decision.options == (
        "x",
        "y",
    )


def test_errors_in_an_own_space_are_not_disguised(settings_of, mine):
    path = mine("def space(size=1):\n    yield Choice('a', (1, 2))\n    len(1, 2)\n")
    with pytest.raises(TypeError, match="exactly one argument"):
        make_space(settings_of(space=f"{path}:space", space__options={"size": 2}))


def test_goals(settings_of, mine):
    settings = settings_of(task__goal={"metric": "loss", "minimize": True})
    assert make_task(settings).floor is None  # no lowest reward is known for a loss
    assert make_task(settings_of()).floor == 0.0
    path = mine("def task(): return {'loss': 3}\n")
    own = settings_of(task=f"{path}:task", task__goal={"metric": "loss", "minimize": True})
    assert make_task(own).evaluate(None, seed=0, report=None).reward == -3.0


def test_npz_and_its_recipe(settings_of, tmp_path):
    path = tmp_path / "images.npz"
    labels = np.arange(20) % 2
    np.savez(path, x_train=np.zeros((20, 4, 4), np.uint8), y_train=labels)
    task = make_task(settings_of(task=f"npz:{path}"))
    assert (task.recipe.epochs, task.shapes) == (10, ((4, 4, 1), 2))


def test_making_an_experiment_imports_no_tensorflow(tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.experiment import make_experiment
settings = {
    "space": {"name": "convnet", "preset": None, "options": {}, "file": None},
    "narrowing": {"fix": [], "only": []},
    "schedule": None,
    "task": {"name": "digits", "recipe": None, "options": {}, "goal": None, "file": None, "data_dir": None},
    "compute": {"precision": "bfloat16", "xla": True},
}
shapes = make_experiment(settings).task.shapes
print(shapes, {"tensorflow", "keras", "sklearn"} & set(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-P", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert ran.stdout == "((8, 8, 1), 10) set()\n"
