"""Training a child of a search again, and its exports used without automl."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil

import numpy as np
import pytest
from command_line import OURS, clean_environment, isolated_python, run_automl

from automl.child_trainers.data.digits import load_digits_data
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.outcome import DivergedError
from automl.child_views import spread
from automl.db.store import Store
from automl.retraining import full_recipe

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUICK = ("--set", "epochs=1", "--set", "num_train=320", "--threads", "1")


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The digits' store after its best child was trained again with two seeds, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(digits[0], folder / "automl.db")
    environment = clean_environment() | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    ran = run_automl("train", "digits", "--seeds", "2", *QUICK, folder=folder, env=environment)
    assert (ran.code, ran.err) == (0, ""), ran
    return folder / "automl.db", ran


@pytest.fixture
def store(trained, folder):
    """A copy of that store in the current folder."""
    shutil.copy(trained[0], folder / "automl.db")
    return folder / "automl.db"


def stored(path):
    """The best child, its trainings in the order of seeds, and another child."""
    with contextlib.closing(Store(str(path), readonly=True)) as opened:
        best, other, *_ = opened.top(opened.search("digits").id, 3)
        return best, opened.trainings(best.id), other


def test_what_training_says(trained):
    path, ran = trained
    best, trainings, _ = stored(path)
    lines = ran.out.splitlines()
    assert lines[0] == f"Training child {best.number} of digits with the recipe {full_recipe('convnet', 'digits')}"
    assert [line.split(":")[0] for line in lines if ", epoch " in line] == ["seed 0, epoch 1", "seed 1, epoch 1"]
    assert [training.seed for training in trainings] == [0, 1]
    told = [float(line.rpartition("(")[2].removesuffix(" s)")) for line in lines if ", epoch " in line]
    assert sum(told) <= sum(training.seconds for training in trainings) + 0.2  # of an epoch, not since the start
    for metric in ("val_accuracy", "test_accuracy"):
        values = [training.metrics[metric] for training in trainings]
        assert f"{metric} over 2 seeds: {spread(values)}" in lines
    assert lines[-1] == (
        f"Export the best of them with: automl export digits --child {best.number} --format keras --to FILE"
    )


def test_results_of_train_are_shown_with_the_child(automl, store):
    best, trainings, _ = stored(store)
    told = ", ".join(
        f"{metric} {spread([one.metrics[metric] for one in trainings])}" for metric in ("val_accuracy", "test_accuracy")
    )
    for command in ("top", "show"):
        lines = automl(command, "digits").out.splitlines()
        (line,) = (line.strip() for line in lines if " trained again " in line)
        assert line.startswith(f"child {best.number} trained again (full, ") and line.endswith(f", 2 seeds): {told}")
    shown = automl("show", "digits", "--json").json["trained_again"]
    assert [(one["number"], one["seed"], one["metrics"]) for one in shown] == [
        (best.number, one.seed, one.metrics) for one in trainings
    ]
    assert [len(found["trained_again"]) for found in automl("top", "digits", "--json").json][:2] == [2, 0]


def test_trained_again_it_trains_only_what_is_new(automl, store):
    before = stored(store)
    ran = automl("train", "digits", "--seeds", "2", *QUICK)
    assert ran.code == 0 and ", epoch " not in ran.out and "val_accuracy over 2 seeds: " in ran.out
    assert stored(store) == before
    ran = automl("train", "digits", "--seeds", "3", *QUICK)
    assert [line.split(":")[0] for line in ran.out.splitlines() if ", epoch " in line] == ["seed 2, epoch 1"]
    assert stored(store)[1][:2] == before[1] and len(stored(store)[1]) == 3


def test_json(automl, store):
    best, trainings, _ = stored(store)
    shown = automl("train", "digits", "--seeds", "2", *QUICK, "--json").json
    assert [run["seed"] for run in shown] == [0, 1]
    assert [run["metrics"] for run in shown] == [training.metrics for training in trainings]
    assert all(run["recipe"]["options"] == {"epochs": 1, "num_train": 320} for run in shown)
    assert automl("export", "digits", "--format", "json", "--to", "best.json").code == 0
    document = json.loads(store.with_name("best.json").read_text())
    assert [run["metrics"] for run in document["trainings"]] == [run["metrics"] for run in shown]
    assert document["number"] == best.number and document["reward"] == best.reward


def test_whose_weights_are_exported(automl, store, folder):
    best, trainings, other = stored(store)
    again = max(trainings, key=lambda training: training.reward)

    def export(*flags):
        return automl("export", "digits", "--format", "keras", "--to", "a.keras", "--force", *flags)

    told = f"training again with seed {again.seed} ({again.metrics['val_accuracy']:.4f}).\n"
    assert f", as in {told}" in export().out
    assert f", as in {told}" in export("--from", "train").out
    assert f", as in the search ({best.metrics['val_accuracy']:.4f}).\n" in export("--from", "search").out
    assert f"as in the search ({other.metrics['val_accuracy']:.4f}).\n" in export("--child", other.number).out
    before = (folder / "a.keras").read_bytes()
    assert export("--child", other.number, "--from", "train").error == (
        f"Child {other.number} of 'digits' was not trained again; do so with: automl train digits "
        f"--child {other.number}"
    )
    assert export("--from", "trian").error == "There is no source of weights called 'trian'; there is train, search."
    assert (folder / "a.keras").read_bytes() == before


def test_a_seed_that_diverges_is_reported_and_the_others_continue(automl, store, monkeypatch):
    evaluate = ImageClassification.evaluate

    def without_seed_2(self, spec, *, seed, report):
        if seed == 2:
            raise DivergedError("The loss is nan.")
        return evaluate(self, spec, seed=seed, report=report)

    monkeypatch.setattr(ImageClassification, "evaluate", without_seed_2)
    ran = automl("train", "digits", "--seeds", "4", *QUICK)
    assert ran.code == 0 and ran.err == "seed 2 diverged: The loss is nan.\n"
    assert "val_accuracy over 3 seeds: " in ran.out
    assert [training.seed for training in stored(store)[1]] == [0, 1, 3]


def test_a_child_that_diverges_with_every_seed(automl, store):
    ran = automl("train", "digits", "--seeds", "1", *QUICK, "--set", "learning_rate=1e38", "--set", "num_train=640")
    best, trainings, _ = stored(store)
    assert ran.code == 1 and ran.err.splitlines() == [
        "seed 0 diverged: The training loss of step 2 of epoch 1 is nan.",
        f"Error: Child {best.number} of 'digits' diverges with this recipe; use a lower learning rate, for example "
        "--set learning_rate=0.01.",
    ]
    assert len(trainings) == 2


ALONE = """
import sys
import tensorflow as tf
import numpy as np
held = np.load("validation.npz")
raw = held["x"].astype(np.float32)
if sys.argv[1] == "savedmodel":
    model = tf.saved_model.load("exported")  # its variables live as long as it does
    logits = model.serve(raw).numpy()
else:
    interpreter = tf.lite.Interpreter(model_path="exported")
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, raw.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, raw)
    interpreter.invoke()
    logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
print((logits.argmax(1) == held["y"]).mean())
"""


@pytest.mark.parametrize("format", ["savedmodel", "tflite"])
def test_an_exported_model_needs_only_tensorflow(automl, store, folder, format):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    _, trainings, _ = stored(store)
    expected = max(trainings, key=lambda training: training.reward).metrics["val_accuracy"]
    ran = automl("export", "digits", "--format", format, "--to", elsewhere / "exported")
    assert f"validation accuracy {expected:.4f}, as in training again" in ran.out, ran
    assert [path.name for path in elsewhere.iterdir()] == ["exported"]
    data = load_digits_data()
    np.savez(elsewhere / "validation.npz", x=data.x_validation, y=data.y_validation)
    store.unlink()
    assert float(isolated_python(ALONE, elsewhere, format)) == pytest.approx(expected, abs=0.5 / len(data.x_validation))


def test_onnx_without_its_packages(automl, store, folder, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "onnx" in name else real(name, *more))
    ran = automl("export", "digits", "--format", "onnx", "--to", "a.onnx")
    assert ran.error == "ONNX needs two more packages: pip install 'automl-reinforce[onnx]'"
    assert not (folder / "a.onnx").exists()


def test_what_cannot_be_trained(automl, store):
    before = stored(store)
    assert automl("train", "digits", "--seeds", "0").error == "--seeds is 0; it must be 1 or more."
    assert automl("train", "digits", "--set", "epohcs=1").error.startswith(
        "There is no task option called 'epohcs'; there is epochs, "
    )
    assert automl("train", "digits", "--set", "epochs=0").error.startswith("task.epochs is 0; it must be a whole ")
    assert automl("train", "digits", "--recipe", "papre").error.startswith("There is no recipe called 'papre'; ")
    assert automl("train", "digits", "--child", "99").error == "'digits' has no child 99; see automl top digits."
    assert stored(store) == before


def test_a_task_of_the_user(automl, mine, folder):
    assert automl("search", "mine", *OURS, "--children", "2", "--workers", "0").code == 0
    (best, *_) = automl("top", "mine", "--json").json
    ran = automl("train", "mine", "--seeds", "2")
    lines = ran.out.splitlines()
    assert ran.code == 0 and lines[0] == f"Training child {best['number']} of mine"
    assert [line.split(",")[0] for line in lines[-2:]] == [
        f"seed {seed}: worth {best['reward']:.4f}" for seed in (0, 1)
    ]
    assert automl("train", "mine", "--recipe", "paper").error == (
        "A task of your own has no recipes; drop the recipe 'paper'."
    )


def test_the_spread():
    assert (spread([0.5]), spread([0.25, 0.75])) == ("0.5000", "0.5000 ± 0.3536")


def test_the_longest_recipe():
    assert full_recipe("convnet", "npz:a.npz") == full_recipe("convnet", "npz:b.npz") is not None
    assert full_recipe("convnet", "cifar10") == full_recipe("update-rule", "cifar10") == "paper"
    assert full_recipe("convnet", "mine.py:evaluate") is None
