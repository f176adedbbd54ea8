"""One child on several devices at once: here two logical ones of the processor, in a process of their own."""

import json
import os
import subprocess
import sys

import pytest
from waiting import SECONDS

from automl.child_trainers.devices import environment
from automl.child_trainers.workers.process import ROOT

SCRIPT = """
import json, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import tensorflow as tf
(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

from automl.child_trainers.images import training as image_training
from automl.child_trainers.training.checkpoints import FileCheckpoint
from automl.child_trainers.devices import Compute
from automl.child_trainers.images.networks import make_network
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.images.training import DeviceData, ImageTrainer, scope_of
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet

NET = ConvNet((ConvLayer(3, 3, 16, ()),))
SMALLEST = ConvNet((ConvLayer(1, 1, 8, ()),))
RECIPE = {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "schedule": "cosine", "num_train": 640}
RECIPE |= {"num_validation": 200, "augment": False}
found = {}


class Report:
    def __init__(self, checkpoint=None, dies_after=None):
        self.rows = []
        self.checkpoint = checkpoint
        self._dies_after = dies_after

    def __call__(self, epoch, **metrics):
        self.rows.append(metrics)
        if epoch == self._dies_after:
            raise KeyboardInterrupt

    def restore(self, history):
        self.rows += history

    def follow(self, steps_done):
        self.steps_done = steps_done


def task(*, spec=NET, seed=5, report=None, compute=None, **changes):
    made = ImageClassification("digits", Recipe(**(RECIPE | changes)), compute=compute or Compute(devices=2))
    return made, made.evaluate(spec, seed=seed, report=report or Report())


def error(action):
    try:
        action()
    except ValueError as raised:
        return str(raised)


def differences(variables):
    \"\"\"The greatest difference between what two devices hold, by variable.\"\"\"
    return {name: float(np.abs(np.subtract(*(part.numpy() for part in one.values))).max()) for name, one in variables}


# The whole of a child.
report, again = Report(), Report()
made, outcome = task(report=report)
_, second = task(report=again)
found["metrics"], found["steps"] = dict(outcome.metrics), report.steps_done()
found["again"] = report.rows == again.rows and all(
    np.array_equal(weight, second.weights[name]) for name, weight in outcome.weights.items()
)
found["losses"] = [row["loss"] for row in report.rows]
found["exported"] = made.validate(made.model(NET, dict(outcome.weights)))


def held(compute):
    \"\"\"What each device holds after an epoch.\"\"\"
    with scope_of(compute):
        network, _ = make_network(SMALLEST, *made.shapes, seed=5, compute=compute)
    trainer = ImageTrainer(network, made.device_data, made.recipe, 5, compute)
    return {
        "loss": trainer.train_epoch(0),
        "trainable": differences(network.trainable.items()),
        "velocities": differences(trainer._update.slots.items()),
        "moving": differences(network.moving.items()),
    }


found["float32"] = held(Compute(devices=2))


class Linear:
    \"\"\"Of plain operations, without normalization: a batch in two halves has the gradient of the whole.\"\"\"

    def __init__(self):
        self.trainable = {"kernel": tf.Variable(tf.ones((64, 10)) / 8)}
        self.moving = {}

    def train_logits(self, images):
        return self.logits(images)

    def logits(self, images):
        return tf.matmul(tf.reshape(images, (-1, 64)), self.trainable["kernel"])


found["linear"] = []
for devices in (1, 2):
    compute = Compute(devices=devices)
    with scope_of(compute):
        network = Linear()
    trainer = ImageTrainer(network, made.device_data, made.recipe, 5, compute)
    losses = [trainer.train_epoch(epoch) for epoch in range(2)]
    found["linear"].append([losses, trainer.metrics()["val_accuracy"], network.trainable["kernel"].numpy().tolist()])

# Of two images that are alike, one for each device, each is changed in its own way.
seen = []


class Seeing(Linear):
    def train_logits(self, images):
        changed = tf.py_function(lambda images: seen.append(images.numpy()), [images], [])
        with tf.control_dependencies([changed]):
            return self.logits(images)


compute = Compute(devices=2)
with scope_of(compute):
    network = Seeing()
x, y = tf.repeat(made.device_data.x_train[:1], 8, axis=0), tf.repeat(made.device_data.y_train[:1], 8)
ImageTrainer(network, DeviceData(x, y, x, y), Recipe(batch_size=8, augment=True), 5, compute).train_epoch(0)
found["augmented"] = [len(seen), [len(images) for images in seen], not np.array_equal(*seen)]

# One that is killed.
image_training.CHECKPOINT_SECONDS = 0
checkpoint = FileCheckpoint(Path(tempfile.mkdtemp()) / "child-0.checkpoint", "child")
try:
    task(report=Report(checkpoint, dies_after=1))
except KeyboardInterrupt:
    pass
resumed = Report(checkpoint)
_, third = task(report=resumed)
found["resumed"] = [row["loss"] for row in resumed.rows]
found["resumed weights"] = max(
    float(np.abs(weight - third.weights[name]).max()) for name, weight in outcome.weights.items()
)


class OfKeras:
    def build(self, input_shape, num_classes):
        return SMALLEST.build(input_shape, num_classes)


try:
    found["of keras"] = task(spec=OfKeras())[1].metrics["devices"]
except Exception as raised:
    found["of keras"] = repr(raised)
found["batch"] = error(lambda: task(batch_size=33))
found["all images"] = error(lambda: task(batch_size=64, num_train=63))
found["devices"] = error(lambda: task(compute=Compute(devices=3)))
try:
    found["float16"] = held(Compute("float16", devices=2))  # another search in this process
except Exception as raised:
    found["float16"] = {"error": repr(raised)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    ran = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, ROOT],
        env=os.environ | environment(threads=1, gpu=None),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout)


def test_a_child_learns_on_two_devices(found):
    metrics = found["metrics"]
    assert (metrics["devices"], metrics["traces"], metrics["precision"]) == (2, 1, "float32")
    assert found["steps"] == 4 * 20  # a step is one of all devices
    assert metrics["val_accuracy"] > 0.3 and found["losses"][-1] < found["losses"][0]
    assert found["again"]


def test_its_exported_model_has_the_stored_accuracy(found):
    assert found["exported"] == {"val_accuracy": found["metrics"]["val_accuracy"]}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_devices_hold_equal_weights_after_every_step(found, precision):
    held = found[precision]
    assert "error" not in held
    assert 0 < held["loss"] < 4
    assert set(held["trainable"].values()) == set(held["velocities"].values()) == {0.0}
    assert len(held["trainable"]) == 5
    # Moments are of each device's own images; what is stored is the mean.
    assert len(held["moving"]) == 2 and min(held["moving"].values()) > 0


def test_two_devices_train_what_one_does(found):
    (losses, accuracy, kernel), (losses_of_two, accuracy_of_two, kernel_of_two) = found["linear"]
    assert losses_of_two == pytest.approx(losses, rel=1e-5)
    assert accuracy_of_two == accuracy
    for row, row_of_two in zip(kernel, kernel_of_two, strict=True):
        assert row_of_two == pytest.approx(row, rel=1e-4, abs=1e-6)


def test_each_device_has_its_share_of_a_batch_changed_in_its_own_way(found):
    assert found["augmented"] == [2, [4, 4], True]


def test_a_child_of_two_devices_that_is_killed_goes_on(found):
    """Moving averages go on from their mean, so the last bits may differ."""
    assert found["resumed"] == pytest.approx(found["losses"], rel=1e-5)
    assert found["resumed weights"] < 1e-4


def test_a_network_that_only_keras_has_is_trained_on_one(found):
    assert found["of keras"] == 1


@pytest.mark.parametrize(("where", "size"), [("batch", 33), ("all images", 63)])
def test_a_batch_must_be_divisible(found, where, size):
    assert found[where] == (
        f"A batch of {size} images cannot be divided among 2 devices (--gpus-per-child); choose another "
        "task.batch_size."
    )


def test_there_must_be_as_many_devices(found):
    assert found["devices"] == "A child was to be trained on 3 devices, but there are 2."
