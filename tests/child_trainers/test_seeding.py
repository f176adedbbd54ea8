"""Every child begins alike, whatever it imports and when: the first of a process as the third."""

from __future__ import annotations

import contextlib
import importlib
import random
import sys

import numpy as np
import pytest
from command_line import Watcher, run_automl

from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.seeding import LIBRARIES, Seeder, preserve_basic

TORCH = """
import random
generator = random.Random()
weights = random.random()  # drawn when it is imported
def manual_seed(seed):
    generator.seed(seed)
def rand():
    return generator.random()
"""
HELPER = (
    "import random\nimport torch\noffset = random.random() + torch.rand()\ndef draw(): return offset + torch.rand()\n"
)


def no_report(epoch, **metrics):
    pass


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """A small library called torch, and a module that uses it; neither is imported."""
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "helper_of_torch.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("torch", "helper_of_torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("torch", "helper_of_torch"):
        sys.modules.pop(name, None)


def statement():
    before = random.random()
    import torch

    return [before, random.random(), np.random.rand(), torch.rand(), torch.weights]


def late_helper():
    before = np.random.rand()
    import helper_of_torch

    return [before, random.random(), np.random.rand(), helper_of_torch.draw()]


def by_name():
    torch = importlib.import_module("tor" + "ch")
    return [random.random(), torch.rand(), torch.rand()]


def helper_by_name():
    return [importlib.import_module("helper_of" + "_torch").draw(), random.random()]


@pytest.mark.parametrize("function", [statement, late_helper, by_name, helper_by_name])
@pytest.mark.parametrize("uses", [(), ("torch",), LIBRARIES])
def test_the_first_child_of_a_process_equals_the_third(libraries, function, uses):
    def drawn(task, seed):
        return task.evaluate(None, seed=seed, report=no_report).metrics["drawn"]

    def make():
        for name in ("torch", "helper_of_torch"):
            sys.modules.pop(name, None)
        return FunctionTask(lambda: {"reward": 0, "drawn": function()}, uses=uses)

    alone = drawn(make(), 7)
    task = make()
    others = [drawn(task, seed) for seed in (5, 6)]
    assert drawn(task, 7) == alone
    assert alone not in others and others[0] != others[1]


@pytest.mark.parametrize("function", [statement, by_name])
def test_what_another_has_imported_is_seeded_once_a_child_imports_it_too(libraries, function):
    """As TensorFlow, which the policy has imported where children train beside it."""
    import torch

    task = FunctionTask(lambda: {"reward": 0, "drawn": function()}, uses=())
    torch.generator.seed(99)
    first = task.evaluate(None, seed=7, report=no_report).metrics
    for seed in (8, 7):
        last = task.evaluate(None, seed=seed, report=no_report).metrics
    assert first == last


def test_what_a_task_does_not_import_is_left_alone(libraries):
    import torch

    torch.generator.seed(99)
    expected = random.Random(99).random()
    FunctionTask(lambda: random.random(), uses=()).evaluate(None, seed=7, report=no_report)
    assert torch.rand() == expected


def test_nothing_is_left_behind(libraries):
    before = [*sys.meta_path], importlib.import_module, __builtins__["__import__"]
    import torch  # noqa: F401

    with contextlib.suppress(ZeroDivisionError):
        FunctionTask(lambda: 1 / 0, uses=()).evaluate(None, seed=7, report=no_report)
    assert ([*sys.meta_path], importlib.import_module, __builtins__["__import__"]) == before
    random.seed(3)
    with preserve_basic():
        random.random()
    assert random.random() == random.Random(3).random()


def test_a_library_is_not_imported_for_a_task_that_does_not_use_it(libraries):
    with Seeder(LIBRARIES).begin(3):
        pass
    assert "torch" not in sys.modules


KERAS = """
from automl import Choice

def space():
    units = yield Choice("units", tuple(range(8, 40)))
    return units

def evaluate(spec):
    import random
    import numpy as np
    before = [random.random(), float(np.random.rand())]
    {first}
    import keras
    model = keras.Sequential([keras.layers.Dense(spec), keras.layers.Dropout(0.3), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.rand(8, 4).astype("float32")
    loss = model.fit(x, x[:, :1], verbose=0).history["loss"][0]
    return {{"reward": -loss, "before": before, "name": model.layers[0].name, "drawn": {drawn}}}
"""
WAYS = {
    "keras": {"first": "pass", "drawn": "float(keras.random.uniform(()))"},
    "tensorflow": {
        "first": "import tensorflow as tf; first = float(tf.random.uniform(()))",
        "drawn": "[first, float(tf.random.uniform(()))]",
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_children_that_are_the_first_to_import_keras(tmp_path, way):
    """Each alone in a worker of its own, and one after the other."""
    (tmp_path / "mine.py").write_text(KERAS.format(**WAYS[way]))
    ours = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random", "--children", "3")
    ways = {"apart": ("--workers", "3", "--recycle-after", "1"), "together": ("--workers", "0")}
    found = {}
    for name, workers in ways.items():
        ran = run_automl("search", name, *ours, *workers, "--batch-size", "3", "--replicas", "1", folder=tmp_path)
        assert ran.code == 0, ran
        found[name] = [
            (child.state, child.reward, child.metrics) for child in Watcher(tmp_path / "automl.db", name).children()[:3]
        ]
    assert found["apart"] == found["together"]
    assert all(state == "trained" for state, _, _ in found["apart"])
