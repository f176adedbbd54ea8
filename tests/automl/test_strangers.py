"""A space and a task from outside the packages, added as `docs/architecture.md` says."""

import contextlib
import sys
from pathlib import Path

import pytest

import automl as api
from automl.child_trainers.registry import TASKS
from automl.exporters import EXPORTERS, Exporter, ExportResult
from automl.search_spaces import PRESETS, READERS, SPACES

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DENSE = """
import dataclasses

from automl import Choice


@dataclasses.dataclass(frozen=True)
class Dense:
    units: int

    def canonical(self):
        return {"units": self.units}

    def to_json(self):
        return {"units": self.units}

    @classmethod
    def from_json(cls, stored):
        return cls(**stored)

    def line(self):
        return f"one layer of {self.units}"

    def drawing(self):
        return f"image\\n└─ {self.units} units"

    def build(self, input_shape, num_classes):
        import keras

        image = keras.Input(input_shape)
        hidden = keras.layers.Dense(self.units, "relu")(keras.layers.Flatten()(image))
        return keras.Model(image, keras.layers.Dense(num_classes)(hidden))


def space():
    units = yield Choice("units", (4, 8))
    return Dense(units)


PRESETS = {"all": {}}
"""
SHORT = ("--set", "task.epochs=1", "--set", "task.num_train=48", "--children", "1", "--workers", "0")
RANDOM = ("--controller", "random", "--seed", "0")


def test_a_space_of_a_file(automl, folder):
    """Its specs are built by the task, and shown in their own notation where their code runs anyway; views of the store
    run no code of the user's."""
    (folder / "dense.py").write_text(DENSE)
    assert automl("search", "dense", "--space", "dense.py:space", "--task", "digits", *SHORT, *RANDOM).code == 0
    assert '{"units": ' in automl("top", "dense").out
    trained = automl("train", "dense", "--recipe", "default", "--set", "epochs=1").out
    assert "one layer of " in trained and "    └─ " in trained
    assert automl("export", "dense", "--format", "keras", "--to", "dense.keras").code == 0


def test_a_space_of_a_module_with_its_lines_in_the_tables(automl, folder, monkeypatch):
    (folder / "stranger_dense.py").write_text(DENSE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(SPACES, "dense", "stranger_dense:space")
    monkeypatch.setitem(PRESETS, "dense", "stranger_dense:PRESETS")
    monkeypatch.setitem(READERS, "dense", "stranger_dense:Dense.from_json")
    assert automl("search", "dense", "--space", "dense", "--task", "digits", *SHORT, *RANDOM).code == 0
    assert "one layer of " in automl("top", "dense").out
    shown = automl("show", "dense").out
    assert "one layer of " in shown and "    image\n    └─ " in shown


DISTANCE = '''
import dataclasses

import numpy as np

from automl import Choice, Outcome, Task


def space():
    return {"x": (yield Choice("x", (1, 2, 3, 4)))}


class Distance(Task):
    """How far x is from a number."""

    metric = "distance"
    floor = -10.0

    def __init__(self, target=3):
        self.target = target

    def evaluate(self, spec, *, seed, report):
        distance = float(abs(spec["x"] - self.target))
        report(1, distance=distance)
        return Outcome(-distance, {"distance": distance}, weights={"x": np.array([[spec["x"]]], np.float32)})

    def describe(self):
        return {"target": self.target}

    def has_model(self, spec):
        return True

    def model(self, spec, weights):
        import keras

        one = keras.Input((1,), name="one")
        model = keras.Model(one, keras.layers.Dense(1, use_bias=False, name="x")(one))
        model.set_weights([weights["x"]])
        return model

    def validate(self, model, spec):
        return {"distance": abs(float(np.asarray(model(np.ones((1, 1), np.float32)))[0, 0]) - self.target)}

    def test(self, model, spec):
        return {"test_distance": self.validate(model, spec)["distance"] + 1.0}


@dataclasses.dataclass(frozen=True)
class Constants:
    target: int = 2


class Registered(Distance):
    recipe_kind = Constants

    def __init__(self, name, recipe, **others):
        super().__init__(recipe.target)

    def constants(self):
        return {"target": self.target}
'''


@pytest.fixture
def distance(folder: Path) -> tuple[str, ...]:
    (folder / "distance.py").write_text(DISTANCE)
    return ("--space", "distance.py:space", "--children", "4", "--workers", "0", *RANDOM)


def test_a_task_class_of_a_file(automl, distance):
    """The task is used in a search, to train again with a result on test data, and to export and check the model."""
    own = (*distance, "--task", "distance.py:Distance")
    ran = automl("search", "far", *own, "--set", "task.target=4")
    assert ran.code == 0 and "Each child: target 4" in ran.out
    assert "distance 0.0000" in automl("top", "far").out
    assert "test_distance 1.0000" in automl("train", "far").out
    written = automl("export", "far", "--format", "keras", "--to", "far.keras")
    assert written.code == 0 and "distance 0.0000, as in training again" in written.out
    assert automl("export", "far", "--format", "python", "--to", "far.py").error.startswith(
        "Children of 'far' cannot be written as Python"
    )


def test_what_a_task_class_of_a_file_refuses(automl, distance, folder):
    own = (*distance, "--task", "distance.py:Distance")
    assert automl("search", "a", *own, "--set", "task.targets=4").error == (
        "There is no task option called 'targets'; there is target."
    )
    assert automl("search", "a", *own, "--minimize", "distance").error == (
        "--minimize distance has no effect on the task Distance: its method evaluate chooses the reward, in the "
        "Outcome that it returns; drop the flag, or change evaluate."
    )
    assert automl("search", "a", *own, "--precision", "bfloat16").error == (
        "--precision has no effect on a task of your own, which does its own training; drop it."
    )
    text = DISTANCE.replace("def evaluate(", "def train(").replace("target=3", "target")
    (folder / "distance.py").write_text(text)
    assert automl("search", "a", *own).error == (
        "The class Distance has no method evaluate(self, spec, *, seed, report); add it."
    )
    (folder / "distance.py").write_text(DISTANCE.replace("target=3", "target"))
    assert automl("search", "a", *own).error == (
        "The task Distance requires 'target'; give it a default, or a value with --set task.target=VALUE."
    )


def test_a_task_that_needs_its_devices_to_itself(automl, distance, folder, monkeypatch):
    monkeypatch.setattr("automl.worker_plan.visible_gpus", lambda: [])
    text = DISTANCE.replace(
        "import Choice, Outcome, Task",
        "import Choice, Outcome, Task\nfrom automl.child_trainers.task import Requirements",
    )
    (folder / "distance.py").write_text(
        text.replace("    floor = -10.0", "    requirements = Requirements(exclusive=True)")
    )
    own = ("--space", "distance.py:space", "--task", "distance.py:Distance", *RANDOM, "--children", "2")
    assert automl("search", "two", *own, "--workers", "2").error == (
        "--workers is 2, and children of the task distance.py:Distance need their devices to themselves; use "
        "--workers 1."
    )
    assert automl("search", "one", *own).code == 0
    with contextlib.closing(api.open_store()) as store:
        (segment,) = store.segments(store.search("one").id)
    assert segment.workers == 1
    assert "--workers is 2, and children" in automl("resume", "one", "--children", "3", "--workers", "2").error


def test_a_task_of_a_module_with_its_line_in_the_table(automl, distance, folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(TASKS, "distance", "distance:Registered")
    ran = automl("search", "far", *distance, "--task", "distance")
    assert ran.code == 0 and "Each child: target 2" in ran.out
    assert automl("search", "further", *distance, "--task", "distance", "--set", "task.target=4").code == 0
    sys.modules.pop("distance")


def test_a_task_class_in_python(folder, monkeypatch):
    """Workers import a class of a module, as they do a function; a class of a session is used as it is."""
    (folder / "distance_of_python.py").write_text(DISTANCE)
    monkeypatch.syspath_prepend(folder)
    import distance_of_python as module

    settings = {"controller": "random", "children": 2, "workers": 0, "store": str(folder / "a.db")}
    result = api.search("far", space=module.space, task=module.Distance, **settings)
    assert result.children and result.best.reward <= 0

    class Session(module.Distance):
        def evaluate(self, spec, *, seed, report):
            return 0.25

    assert api.search("own", space=module.space, task=Session, **settings).best.reward == 0.25
    with pytest.raises(ValueError, match="Workers cannot find"):
        api.search("other", space=module.space, task=Session, **{**settings, "workers": 1})


def test_an_export_format_with_its_line_in_the_table(automl, distance, folder, monkeypatch):
    def write(wanted, path):
        path.write_text(f"child {wanted.child.number}")
        return ExportResult("the number of the child")

    monkeypatch.setitem(EXPORTERS, "number", Exporter(write, ".txt"))
    assert automl("search", "far", *distance, "--task", "distance.py:Distance", "--fix", "x=3").code == 0
    written = automl("export", "far", "--format", "number", "--to", "number.txt")
    assert "Exported child 0 of far to number.txt: the number of the child." in written.out
    assert (folder / "number.txt").read_text() == "child 0"
