import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from child_trainers import training
from child_trainers.data.dataset import ImageData
from child_trainers.devices import environment
from child_trainers.process import ROOT
from child_trainers.recipes import Recipe
from child_trainers.task import DivergedError, fresh_start
from child_trainers.training import DeviceData, Trainer, augment, learning_rate, name_weights, ordered_weights, train


class FakeReport:
    def __init__(self):
        self.epochs = []
        self.steps = 0

    def __call__(self, epoch, **metrics):
        self.epochs.append((epoch, metrics))

    def step(self, count=1):
        self.steps += count


def random_data(num_train=32, num_validation=16, shape=(4, 4, 1), num_classes=3):
    generator = np.random.Generator(np.random.PCG64(0))

    def images(count):
        return generator.normal(size=(count, *shape)).astype(np.float32)

    def labels(count):
        return generator.integers(num_classes, size=count).astype(np.int32)

    arrays = (images(num_train), labels(num_train), images(num_validation), labels(num_validation))
    return DeviceData(*(tf.constant(array) for array in arrays))


def linear_model(shape=(4, 4, 1), num_classes=3, **settings):
    dense = keras.layers.Dense(num_classes, **settings)
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), dense])


def test_whitening_by_hand():
    images = np.array([[[[0.0], [2.0]], [[4.0], [6.0]]], [[[5.0], [5.0]], [[5.0], [5.0]]]], np.float32)
    whitened = np.asarray(training.whitening((2, 2, 1))(images))
    # Mean 3 and variance (9 + 1 + 1 + 9) / 4 = 5; a blank image becomes zeros.
    np.testing.assert_allclose(whitened[0, :, :, 0], np.array([[-3, -1], [1, 3]]) / math.sqrt(5.01), rtol=1e-5)
    np.testing.assert_allclose(whitened[0, :, :, 0], np.array([[-3, -1], [1, 3]]) / math.sqrt(5), rtol=2e-3)
    np.testing.assert_array_equal(whitened[1], 0.0)


def test_whitening_is_over_height_width_and_channels_of_each_image():
    images = np.random.default_rng(0).integers(256, size=(3, 5, 6, 2)).astype(np.float32)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    std = images.std(axis=(1, 2, 3), keepdims=True)
    layer = training.whitening((5, 6, 2))
    np.testing.assert_allclose(layer(images), (images - mean) / std, rtol=1e-4, atol=1e-5)
    assert layer.weights == []


def test_to_device_whitens_training_and_validation_images_alike():
    x = np.random.default_rng(0).integers(256, size=(5000, 2, 2, 1)).astype(np.uint8)  # more than one part of 4,096
    y = (np.arange(5000) % 2).astype(np.int32)
    data = training.to_device(
        ImageData(name="x", x_train=x, y_train=y, x_validation=x[:9], y_validation=y[:9], num_classes=2)
    )
    assert data.x_train.shape == x.shape and data.x_train.dtype == tf.float32
    # Up to the last bit, which depends on an image's place in its batch.
    np.testing.assert_allclose(data.x_train[:9], data.x_validation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.x_train, training.whitening((2, 2, 1))(x.astype(np.float32)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(data.y_train, y)


def test_augment_is_a_function_of_its_seed():
    images = tf.random.stateless_normal((16, 8, 8, 3), seed=(0, 0))
    first, again = augment(images, tf.constant([3, 4])), augment(images, tf.constant([3, 4]))
    assert first.shape == images.shape and first.dtype == images.dtype
    np.testing.assert_array_equal(first, again)
    for other in ([3, 5], [4, 4]):
        assert np.any(np.asarray(first) != augment(images, tf.constant(other)))
    assert augment(images, tf.constant([2**31 - 1, 0])).shape == images.shape  # the greatest seed of a child


def test_augment_pads_crops_and_flips():
    """Every result is one of the 9 x 9 x 2 that can be made by hand, and all shifts and both sides are met."""
    image = np.arange(1.0, 13.0, dtype=np.float32).reshape(4, 3)[..., np.newaxis]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    by_hand = {}
    for row in range(9):
        for column in range(9):
            crop = padded[row : row + 4, column : column + 3]
            by_hand.setdefault(crop.tobytes(), (row, column, False))
            by_hand.setdefault(crop[:, ::-1].tobytes(), (row, column, True))
    count = 4000
    augmented = np.asarray(augment(tf.constant(np.tile(image, (count, 1, 1, 1))), tf.constant([1, 2])))
    found = [by_hand[crop.tobytes()] for crop in augmented]
    # Shifts by 3 columns or more, and by 4 rows, push the whole image out: such crops are all alike, and left aside.
    inside = [place for place in found if 0 < place[0] < 8 and 1 < place[1] < 7]
    assert {place[0] for place in inside} == set(range(1, 8))
    assert {place[1] for place in inside} == set(range(2, 7))
    # 35 of 81 places are inside, and half of them are flipped: six sigma.
    assert abs(len(inside) - count * 35 / 81) < 6 * math.sqrt(count * 35 / 81 * 46 / 81)
    flipped = sum(place[2] for place in inside)
    assert abs(flipped - len(inside) / 2) < 6 * math.sqrt(len(inside) / 4)


def rates(recipe, steps, total):
    return [float(learning_rate(recipe, tf.constant(step), total)) for step in steps]


def test_learning_rate_in_steps():
    recipe = Recipe(learning_rate=0.1, schedule="steps")
    np.testing.assert_allclose(
        rates(recipe, [0, 49, 50, 74, 75, 99], 100), [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6
    )


def test_learning_rate_as_cosine():
    recipe = Recipe(learning_rate=0.1, schedule="cosine")
    root = math.sqrt(2) / 2  # cos(pi / 4)
    expected = [0.1, 0.05 * (1 + root), 0.05, 0.05 * (1 - root)]
    np.testing.assert_allclose(rates(recipe, [0, 1, 2, 3], 4), expected, rtol=1e-5)


def run_with_accuracies(monkeypatch, accuracies, last_epochs=5):
    """A training whose epochs only write their number into the weights."""
    model = linear_model()
    given = iter(accuracies)

    def train_epoch(trainer, epoch):
        model.set_weights([np.full_like(weight, epoch + 1) for weight in model.get_weights()])
        return 1.0 / (epoch + 1)

    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    monkeypatch.setattr(Trainer, "validate", lambda trainer: next(given))
    recipe = Recipe(epochs=len(accuracies), batch_size=10, last_epochs=last_epochs)
    report = FakeReport()
    return train(model, random_data(), recipe, seed=0, report=report), report


def test_the_reward_is_the_cube_of_the_best_of_the_last_five(monkeypatch):
    outcome, report = run_with_accuracies(monkeypatch, [0.9, 0.95, 0.4, 0.6, 0.8, 0.8, 0.7])
    assert outcome.reward == pytest.approx(0.512)
    # Epoch 2 was better, but is not among the last five; of equals the first counts.
    assert outcome.epoch == 5
    assert outcome.metrics["val_accuracy"] == 0.8 and outcome.metrics["epoch"] == 5
    assert all(np.all(weight == 5.0) for weight in outcome.weights.values())
    assert [(epoch, metrics["val_accuracy"]) for epoch, metrics in report.epochs] == list(
        enumerate([0.9, 0.95, 0.4, 0.6, 0.8, 0.8, 0.7], 1)
    )
    assert report.epochs[3][1]["loss"] == 0.25
    assert report.steps == 7 * 3  # 32 images in batches of 10, the rest is dropped


def test_fewer_epochs_than_five_and_no_success_at_all(monkeypatch):
    assert run_with_accuracies(monkeypatch, [0.5, 0.25])[0].reward == 0.125
    outcome, _ = run_with_accuracies(monkeypatch, [0.0, 0.0])
    assert (outcome.reward, outcome.epoch) == (0.0, 1)
    assert run_with_accuracies(monkeypatch, [0.5, 0.25], last_epochs=1)[0].epoch == 2


def one_pixel_data():
    """One image of one pixel of value 1, of class 0."""
    x, y = tf.ones((1, 1, 1, 1)), tf.constant([0])
    return DeviceData(x, y, x, y)


def test_one_step_by_hand():
    """Weights (1, 1): probabilities (0.5, 0.5), so the gradient of the loss is (-0.5, 0.5), and the loss is log 2."""
    model = linear_model((1, 1, 1), 2, kernel_initializer="ones")
    recipe = Recipe(epochs=4, batch_size=1, learning_rate=0.1, momentum=0.9, weight_decay=0.2, augment=False)
    trainer = Trainer(model, one_pixel_data(), recipe, seed=0)
    assert trainer.train_epoch(0) == pytest.approx(math.log(2))
    kernel, bias = model.get_weights()
    # With decay g = (-0.3, 0.7), v = -0.1 g, w = 1 + 0.9 v - 0.1 g = 1 - 0.19 g; the bias is not decayed.
    np.testing.assert_allclose(kernel, [[1 + 0.19 * 0.3, 1 - 0.19 * 0.7]], rtol=1e-6)
    np.testing.assert_allclose(bias, [0.19 * 0.5, -0.19 * 0.5], rtol=1e-6)


def test_steps_equal_keras_sgd_with_nesterov_and_decay():
    data = random_data()
    models = [linear_model(kernel_initializer=keras.initializers.GlorotUniform(seed=1)) for _ in range(2)]
    recipe = Recipe(epochs=8, batch_size=32, learning_rate=0.3, momentum=0.8, weight_decay=0.01, augment=False)
    trainer = Trainer(models[0], data, recipe, seed=0)
    optimizer = keras.optimizers.SGD(0.3, momentum=0.8, nesterov=True)
    kernel, bias = models[1].trainable_variables
    for epoch in range(4):  # the rate is lowered from half of the 8 steps on
        trainer.train_epoch(epoch)
        with tf.GradientTape() as tape:
            logits = models[1](data.x_train, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(data.y_train, logits))
        gradients = tape.gradient(loss, [kernel.value, bias.value])
        optimizer.apply([gradients[0] + 0.01 * kernel, gradients[1]], [kernel, bias])
    for ours, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_every_epoch_has_its_own_order_of_images():
    """With one image a step, a rate that changes nothing and no noise, the mean loss is the same in any order; the
    weights after an epoch with a real rate are not."""
    data = random_data()
    after = []
    for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1)):
        model = linear_model(kernel_initializer="zeros")
        recipe = Recipe(epochs=100, batch_size=1, learning_rate=0.05, augment=False)
        Trainer(model, data, recipe, seed).train_epoch(epoch)
        after.append(model.get_weights()[0])
    np.testing.assert_array_equal(after[0], after[1])
    assert np.any(after[0] != after[2]) and np.any(after[0] != after[3])


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_child_that_diverges(rate):
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=rate, augment=False)
    report = FakeReport()
    with pytest.raises(DivergedError, match=r"The training loss of epoch \d is (nan|inf)\."):
        train(linear_model(), random_data(), recipe, seed=0, report=report)
    assert report.steps in (4, 8, 12)  # the epoch that diverged was trained


def test_two_traces_though_the_last_validation_batch_is_smaller():
    data = random_data(num_validation=training.VALIDATION_BATCH + 100)
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.01)
    outcome = train(linear_model(), data, recipe, seed=0, report=FakeReport())
    assert outcome.metrics["traces"] == 2


def test_validation_counts_every_image_once():
    data = random_data(num_validation=2 * training.VALIDATION_BATCH + 7)
    model = linear_model()
    accuracy = Trainer(model, data, Recipe(), seed=0).validate()
    x, y = np.asarray(data.x_validation), np.asarray(data.y_validation)
    assert accuracy == np.mean(np.asarray(model(x)).argmax(axis=1) == y)
    assert training.accuracy(model, x, y) == accuracy


def test_a_batch_is_never_larger_than_the_data():
    trainer = Trainer(linear_model(), random_data(num_train=5), Recipe(batch_size=64), seed=0)
    assert trainer.steps_per_epoch == 1
    assert math.isfinite(trainer.train_epoch(0))


def test_weights_keep_their_order_by_name():
    weights = [np.full(1, index) for index in range(12)]
    named = name_weights(weights)
    assert list(named)[:2] == ["weight0000", "weight0001"]
    shuffled = {name: named[name] for name in sorted(named, reverse=True)}
    assert [int(weight[0]) for weight in ordered_weights(shuffled)] == list(range(12))


def test_the_same_child_twice_is_bit_equal():
    results = []
    for _ in range(2):
        fresh_start(7)
        model = linear_model()
        outcome = train(model, random_data(), Recipe(epochs=2, batch_size=8), seed=7, report=FakeReport())
        results.append(
            (outcome.reward, outcome.metrics, b"".join(weight.tobytes() for weight in outcome.weights.values()))
        )
    assert results[0] == results[1]


CHILDREN = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from child_trainers.recipes import Recipe
from child_trainers.tasks.image_classification import ImageClassification
from search_spaces.convnet.spec import ConvLayer, ConvNet

class Report:
    def __init__(self):
        self.rows = []
    def __call__(self, epoch, **metrics):
        self.rows.append([epoch, metrics])
    def step(self, count=1):
        pass

nets = {
    "a": ConvNet((ConvLayer(3, 3, 8, (), pool=True), ConvLayer(3, 1, 8, (0,)), ConvLayer(1, 3, 8, (0, 1)))),
    "b": ConvNet((ConvLayer(5, 5, 4, ()), ConvLayer(3, 3, 8, ()))),
    "c": ConvNet((ConvLayer(1, 1, 16, ()),)),
}
recipe = Recipe(epochs=2, batch_size=32, schedule="cosine", augment=True, num_train=256, num_validation=100)
task = ImageClassification("digits", recipe)
for name in sys.argv[2]:
    report = Report()
    outcome = task.evaluate(nets[name], seed=2**31 - 1 - ord(name), report=report)
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in outcome.weights.values())).hexdigest()
print(json.dumps([outcome.reward, outcome.metrics, report.rows, digest]))
"""


def test_a_child_trained_third_in_a_worker_equals_the_same_child_alone():
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", CHILDREN, ROOT, order],
            env=os.environ | environment(threads=1, gpu=None),
            stdout=subprocess.PIPE,
            text=True,
        )
        for order in ("a", "bca")
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    alone, third = map(json.loads, printed)
    assert alone == third
    reward, metrics, rows, _ = alone
    assert reward == metrics["val_accuracy"] ** 3 and len(rows) == 2 and metrics["traces"] == 2
