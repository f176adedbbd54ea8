import json
import math
import os
import re
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from waiting import SECONDS

from automl.child_trainers.data.dataset import ImageData
from automl.child_trainers.devices import Compute, environment
from automl.child_trainers.images import training as image_training
from automl.child_trainers.images.networks import KerasNetwork
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.images.training import (
    DeviceData,
    ImageTrainer,
    LossScale,
    augment,
    cross_entropy,
    learning_rate,
    train,
)
from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.task import fresh_start
from automl.child_trainers.training.trainer import weights_of
from automl.child_trainers.workers.process import ROOT
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet


class FakeReport:
    checkpoint = None

    def __init__(self):
        self.epochs = []
        self.steps_done = None
        self.steps = []  # done at the end of each epoch

    def __call__(self, epoch, **metrics):
        self.epochs.append((epoch, metrics))
        self.steps.append(self.steps_done())

    def follow(self, steps_done):
        self.steps_done = steps_done


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


def linear_network(*arguments, **settings):
    return KerasNetwork(linear_model(*arguments, **settings))


class OwnNetwork:
    """A linear network of plain operations; `change` does something to the logits of every training step.

    Args:
        gain: logits are multiplied by it after the product of images and kernel.
    """

    def __init__(self, size=16, num_classes=3, *, precision="float32", gain=1.0, change=lambda logits, step: logits):
        self.trainable = {"kernel": tf.Variable(tf.ones((size, num_classes)))}
        self.moving = {"step": tf.Variable(0)}  # the number of the last one, from 1
        self._precision = tf.dtypes.as_dtype(precision)
        self._gain = gain
        self._change = change

    def train_logits(self, images):
        step = self.moving["step"].assign_add(1)
        return self._change(self.logits(images), step)

    def logits(self, images):
        flat = tf.cast(tf.reshape(images, (tf.shape(images)[0], -1)), self._precision)
        product = tf.matmul(flat, tf.cast(self.trainable["kernel"], self._precision))
        return tf.cast(product, tf.float32) * self._gain


def test_standardization_by_hand():
    images = np.array([[[[0.0], [2.0]], [[4.0], [6.0]]], [[[5.0], [5.0]], [[5.0], [5.0]]]], np.float32)
    standardized = np.asarray(image_training.standardization((2, 2, 1))(images))
    # Mean 3 and variance (9 + 1 + 1 + 9) / 4 = 5; a blank image becomes zeros.
    np.testing.assert_allclose(standardized[0, :, :, 0], np.array([[-3, -1], [1, 3]]) / math.sqrt(5.01), rtol=1e-5)
    np.testing.assert_allclose(standardized[0, :, :, 0], np.array([[-3, -1], [1, 3]]) / math.sqrt(5), rtol=2e-3)
    np.testing.assert_array_equal(standardized[1], 0.0)


def test_standardization_is_over_height_width_and_channels_of_each_image():
    images = np.random.default_rng(0).integers(256, size=(3, 5, 6, 2)).astype(np.float32)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    std = images.std(axis=(1, 2, 3), keepdims=True)
    layer = image_training.standardization((5, 6, 2))
    np.testing.assert_allclose(layer(images), (images - mean) / std, rtol=1e-4, atol=1e-5)
    assert layer.weights == []


def test_to_device_whitens_training_and_validation_images_alike():
    x = np.random.default_rng(0).integers(256, size=(5000, 2, 2, 1)).astype(np.uint8)  # more than one part of 4,096
    y = (np.arange(5000) % 2).astype(np.int32)
    data = image_training.to_device(
        ImageData(name="x", x_train=x, y_train=y, x_validation=x[:9], y_validation=y[:9], num_classes=2)
    )
    assert data.x_train.shape == x.shape and data.x_train.dtype == tf.float32
    # Up to the last bit, which depends on an image's place in its batch.
    np.testing.assert_allclose(data.x_train[:9], data.x_validation, rtol=1e-5, atol=1e-6)
    standardized = image_training.standardization((2, 2, 1))(x.astype(np.float32))
    np.testing.assert_allclose(data.x_train, standardized, rtol=1e-5, atol=1e-6)
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
    network = linear_network()
    given = iter(accuracies)

    def train_epoch(trainer, epoch):
        for variable in network.trainable.values():
            variable.assign(tf.fill(variable.shape, epoch + 1.0))
        return 1.0 / (epoch + 1)

    monkeypatch.setattr(ImageTrainer, "train_epoch", train_epoch)
    monkeypatch.setattr(ImageTrainer, "metrics", lambda trainer: {"val_accuracy": next(given)})
    recipe = Recipe(epochs=len(accuracies), batch_size=10, last_epochs=last_epochs)
    report = FakeReport()
    return train(network, random_data(), recipe, seed=0, report=report), report


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


def test_fewer_epochs_than_five_and_no_success_at_all(monkeypatch):
    assert run_with_accuracies(monkeypatch, [0.5, 0.25])[0].reward == 0.125
    outcome, _ = run_with_accuracies(monkeypatch, [0.0, 0.0])
    assert (outcome.reward, outcome.epoch) == (0.0, 1)
    assert run_with_accuracies(monkeypatch, [0.5, 0.25], last_epochs=1)[0].epoch == 2


def test_steps_and_seconds_of_a_training():
    report = FakeReport()
    began = time.perf_counter()
    outcome = train(linear_network(), random_data(), Recipe(epochs=3, batch_size=10), seed=0, report=report)
    elapsed = time.perf_counter() - began
    assert report.steps == [3, 6, 9]  # 32 images in batches of 10, the rest is dropped
    assert outcome.seconds.keys() == {"trace", "train", "validate"}
    assert min(outcome.seconds.values()) > 0
    assert sum(outcome.seconds.values()) < elapsed


def one_pixel_data():
    """One image of one pixel of value 1, of class 0."""
    x, y = tf.ones((1, 1, 1, 1)), tf.constant([0])
    return DeviceData(x, y, x, y)


def test_one_step_by_hand():
    """Weights (1, 1): probabilities (0.5, 0.5), so the gradient of the loss is (-0.5, 0.5), and the loss is log 2."""
    model = linear_model((1, 1, 1), 2, kernel_initializer="ones")
    recipe = Recipe(epochs=4, batch_size=1, learning_rate=0.1, momentum=0.9, weight_decay=0.2, augment=False)
    trainer = ImageTrainer(KerasNetwork(model), one_pixel_data(), recipe, seed=0)
    assert trainer.train_epoch(0) == pytest.approx(math.log(2))
    kernel, bias = model.get_weights()
    # With decay g = (-0.3, 0.7), v = -0.1 g, w = 1 + 0.9 v - 0.1 g = 1 - 0.19 g; the bias is not decayed.
    np.testing.assert_allclose(kernel, [[1 + 0.19 * 0.3, 1 - 0.19 * 0.7]], rtol=1e-6)
    np.testing.assert_allclose(bias, [0.19 * 0.5, -0.19 * 0.5], rtol=1e-6)


def test_steps_equal_keras_sgd_with_nesterov_and_decay():
    data = random_data()
    models = [linear_model(kernel_initializer=keras.initializers.GlorotUniform(seed=1)) for _ in range(2)]
    recipe = Recipe(epochs=8, batch_size=32, learning_rate=0.3, momentum=0.8, weight_decay=0.01, augment=False)
    trainer = ImageTrainer(KerasNetwork(models[0]), data, recipe, seed=0)
    optimizer = keras.optimizers.SGD(0.3, momentum=0.8, nesterov=True)
    kernel, bias = models[1].trainable_variables
    for epoch, rate in enumerate([0.3] * 4 + [0.03] * 2 + [0.003] * 2):  # by the recipe's schedule
        trainer.train_epoch(epoch)
        optimizer.learning_rate = rate
        with tf.GradientTape() as tape:
            logits = models[1](data.x_train, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(data.y_train, logits))
        gradients = tape.gradient(loss, [kernel.value, bias.value])
        optimizer.apply([gradients[0] + 0.01 * kernel, gradients[1]], [kernel, bias])
    for ours, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_epochs_of_a_network_equal_those_of_keras_fit():
    """From the same weights over the same images in the same order, with the schedule of the recipe: every weight and
    moving average, and so the accuracies, are those of `Model.fit`. Decay is left out, since Keras's own shrinks
    weights beside the gradient."""
    net = ConvNet((ConvLayer(3, 3, 4, (), pool=True), ConvLayer(1, 3, 4, (0,)), ConvLayer(3, 1, 5, (0, 1))))
    data = random_data(num_train=48, shape=(8, 8, 2))
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.05, weight_decay=0.0, schedule="cosine", augment=False)
    network = net.network((8, 8, 2), 3, seed=7)
    model = net.build((8, 8, 2), 3)
    for variable in model.weights:
        variable.assign(weights_of(network)[variable.path])
    trainer = ImageTrainer(network, data, recipe, seed=7)
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, 6)
    optimizer = keras.optimizers.SGD(schedule, momentum=recipe.momentum, nesterov=True)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    for epoch in range(recipe.epochs):
        trainer.train_epoch(epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(48), seed=[7, epoch])
        images, labels = tf.gather(data.x_train, order), tf.gather(data.y_train, order)
        model.fit(images, labels, batch_size=16, shuffle=False, verbose=0)
    found = weights_of(network)
    for variable in model.weights:
        np.testing.assert_allclose(found[variable.path], variable.numpy(), rtol=1e-3, atol=1e-5, err_msg=variable.path)
    _, theirs = model.evaluate(data.x_validation, data.y_validation, verbose=0)
    assert trainer.metrics()["val_accuracy"] == pytest.approx(theirs)


def test_each_step_of_an_epoch_starts_from_the_one_before():
    """All images are alike, so their order is no matter: the steps of one epoch are those of many epochs."""
    data = random_data(num_train=1)
    many = data._replace(x_train=tf.repeat(data.x_train, 40, axis=0), y_train=tf.repeat(data.y_train, 40))
    recipe = Recipe(epochs=100, batch_size=1, learning_rate=0.3, augment=False)
    one_epoch, many_epochs = OwnNetwork(), OwnNetwork()
    loss = ImageTrainer(one_epoch, many, recipe, seed=0).train_epoch(0)
    trainer = ImageTrainer(many_epochs, data, recipe, seed=0)
    losses = [trainer.train_epoch(epoch) for epoch in range(40)]
    assert loss == pytest.approx(np.mean(losses), rel=1e-5) and losses[-1] < 0.1 * losses[0]
    np.testing.assert_allclose(one_epoch.trainable["kernel"], many_epochs.trainable["kernel"], rtol=1e-6)


def test_every_epoch_has_its_own_order_of_images():
    """With one image a step, a rate that changes nothing and no noise, the mean loss is the same in any order; the
    weights after an epoch with a real rate are not."""
    data = random_data()
    after = []
    for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1)):
        network = linear_network(kernel_initializer="zeros")
        recipe = Recipe(epochs=100, batch_size=1, learning_rate=0.05, augment=False)
        ImageTrainer(network, data, recipe, seed).train_epoch(epoch)
        after.append(weights_of(network)["weight0000"])
    np.testing.assert_array_equal(after[0], after[1])
    assert np.any(after[0] != after[2]) and np.any(after[0] != after[3])


@pytest.mark.parametrize("augmented", [False, True])
def test_every_epoch_augments_anew(augmented):
    """One image, and a rate that changes nothing: losses differ by what was done to the image alone."""
    network = linear_network((6, 6, 1), kernel_initializer=keras.initializers.GlorotUniform(seed=1))
    recipe = Recipe(epochs=6, batch_size=1, learning_rate=1e-12, augment=augmented)
    trainer = ImageTrainer(network, random_data(num_train=1, shape=(6, 6, 1)), recipe, seed=0)
    losses = {round(trainer.train_epoch(epoch), 4) for epoch in range(6)}
    assert len(losses) > 3 if augmented else len(losses) == 1


@pytest.mark.parametrize("rate", [1e30, 1e38])
def test_a_child_that_diverges(rate):
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=rate, augment=False)
    report = FakeReport()
    with pytest.raises(DivergedError) as caught:
        train(linear_network(), random_data(), recipe, seed=0, report=report)
    found = re.fullmatch(r"The training loss of step (\d) of epoch (\d) is (nan|inf)\.", str(caught.value))
    step, epoch = int(found[1]), int(found[2])
    assert len(report.epochs) == epoch - 1
    assert report.steps_done() == (epoch - 1) * 4 + step  # and none after it


@pytest.mark.parametrize(("number", "step", "epoch"), [(1, 1, 1), (8, 8, 1), (13, 5, 2)])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_ends_training_at_its_step(number, step, epoch, value):
    network = OwnNetwork(change=lambda logits, now: logits + tf.where(now == number, float(value), 0.0))
    report = FakeReport()
    recipe = Recipe(epochs=3, batch_size=4)
    with pytest.raises(DivergedError, match=rf"^The training loss of step {step} of epoch {epoch} is nan\.$"):
        train(network, random_data(), recipe, seed=0, report=report)
    assert (report.steps_done(), network.moving["step"].numpy()) == (number, number)
    assert len(report.epochs) == epoch - 1


def test_an_infinite_loss_is_named_so():
    """The image is of class 0, whose logit falls to minus infinity."""
    network = OwnNetwork(1, 2, change=lambda logits, step: logits - [[math.inf, 0.0]])
    with pytest.raises(DivergedError, match=r"^The training loss of step 1 of epoch 1 is inf\.$"):
        train(network, one_pixel_data(), Recipe(augment=False), seed=0, report=FakeReport())


def test_steps_are_counted_for_another_thread_while_an_epoch_runs():
    reached, goes_on = threading.Event(), threading.Event()

    def wait_in_the_sixth(logits, step):
        def wait(step):
            if step == 6:
                reached.set()
                goes_on.wait(SECONDS)

        with tf.control_dependencies([tf.py_function(wait, [step], [])]):
            return tf.identity(logits)

    network = OwnNetwork(change=wait_in_the_sixth)
    trainer = ImageTrainer(network, random_data(), Recipe(batch_size=4), seed=0)
    assert trainer.steps_done() == 0
    losses = []
    training_thread = threading.Thread(target=lambda: losses.append(trainer.train_epoch(0)), daemon=True)
    training_thread.start()
    try:
        assert reached.wait(SECONDS)
        assert trainer.steps_done() in (5, 6)  # what is being trained may count or not
    finally:
        goes_on.set()
        training_thread.join(SECONDS)
    assert trainer.steps_done() == 8 and math.isfinite(losses[0])


def test_one_trace_though_the_last_validation_batch_is_smaller():
    data = random_data(num_validation=image_training.VALIDATION_BATCH + 100)
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.01)
    outcome = train(linear_network(), data, recipe, seed=0, report=FakeReport())
    assert outcome.metrics["traces"] == 1
    assert (outcome.metrics["precision"], outcome.metrics["xla"]) == ("float32", False)


def test_the_loss_and_its_gradient_are_those_of_keras():
    logits = tf.constant([[1.0, -2.0, 30.0], [0.5, 0.5, -40.0], [200.0, 1.0, 0.0]])
    labels = tf.constant([2, 1, 1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = cross_entropy(logits, labels)
        keras_loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    assert float(ours) == pytest.approx(float(keras_loss), rel=1e-6)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(keras_loss, logits), atol=1e-7)


def test_validation_counts_every_image_once():
    data = random_data(num_validation=2 * image_training.VALIDATION_BATCH + 7)
    model = linear_model()
    accuracy = ImageTrainer(KerasNetwork(model), data, Recipe(), seed=0).metrics()["val_accuracy"]
    x, y = np.asarray(data.x_validation), np.asarray(data.y_validation)
    assert accuracy == np.mean(np.asarray(model(x)).argmax(axis=1) == y)
    assert image_training.accuracy(model, x, y) == accuracy


def test_a_batch_is_never_larger_than_the_data():
    trainer = ImageTrainer(linear_network(), random_data(num_train=5), Recipe(batch_size=64), seed=0)
    assert trainer.steps_per_epoch == 1
    assert math.isfinite(trainer.train_epoch(0))


# Precision and XLA


def scales(scale, gradients):
    """The scale after each of these gradients, and what is made of them."""
    found = []
    for gradient in gradients:
        (true,) = scale.remove([tf.constant([gradient, 4.0])])
        found.append((float(scale.apply(tf.constant(1.0))), true.numpy().tolist()))
    return found


def test_the_scale_of_losses_by_hand(monkeypatch):
    monkeypatch.setattr(LossScale, "PATIENCE", 3)
    scale = LossScale()
    high, low = 2.0**15, 2.0**14
    assert float(scale.apply(tf.constant(0.5))) == high / 2
    assert scales(scale, [2.0, 2.0, math.inf, 2.0, 2.0, math.nan, -math.inf]) == [
        (high, [2 / high, 4 / high]),
        (high, [2 / high, 4 / high]),
        (low, [0.0, 0.0]),  # what is finite beside it trains nothing either
        (low, [2 / low, 4 / low]),  # good steps are counted anew
        (low, [2 / low, 4 / low]),
        (low / 2, [0.0, 0.0]),
        (low / 4, [0.0, 0.0]),
    ]
    assert [after for after, _ in scales(scale, [1.0] * 7)] == [low / 4] * 2 + [low / 2] * 3 + [low] * 2
    assert [after for after, _ in scales(scale, [math.nan] * 20)][-5:] == [1.0] * 5


def test_one_gradient_that_is_not_finite_spoils_all_of_its_step():
    scale = LossScale()
    good, bad = tf.constant([1.0]), tf.constant([[math.inf]])
    assert [gradient.numpy().sum() for gradient in scale.remove([good, bad])] == [0.0, 0.0]
    assert [gradient.shape for gradient in scale.remove([good, bad])] == [(1,), (1, 1)]


def test_gradients_below_float16_are_trained_on():
    """Probabilities are (0.5, 0.5), so the kernel's gradient is gain * (-0.5, 0.5); float16 ends at 6e-8."""
    gain = 1e-8
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=1 / gain, momentum=0.0, weight_decay=0.0, augment=False)
    network = OwnNetwork(1, 2, precision="float16", gain=gain)
    ImageTrainer(network, one_pixel_data(), recipe, 0, Compute("float16")).train_epoch(0)
    np.testing.assert_allclose(network.trainable["kernel"], [[1.5, 0.5]], rtol=1e-3)


def test_a_step_whose_gradients_overflow_leaves_the_weights():
    """The kernel's gradient is 1000 * (-0.5, 0.5), and float16 ends at 65504: 2^7 is the largest scale that fits."""
    recipe = Recipe(epochs=20, batch_size=1, weight_decay=0.0, augment=False)
    network = OwnNetwork(1, 2, precision="float16", gain=1e3)
    trainer = ImageTrainer(network, one_pixel_data(), recipe, 0, Compute("float16"))
    for epoch in range(8):  # the scale is halved from 2^15 on
        assert trainer.train_epoch(epoch) == pytest.approx(math.log(2))
        np.testing.assert_array_equal(network.trainable["kernel"], [[1.0, 1.0]])
    trainer.train_epoch(8)
    # By Nesterov's method the first step is 1.9 times the rate: 0.19 * 500.
    np.testing.assert_allclose(network.trainable["kernel"], [[96.0, -94.0]], rtol=1e-3)


def test_training_in_float16_is_close_to_float32():
    data, recipe = random_data(num_train=64), Recipe(epochs=4, batch_size=8, augment=False)
    results = {}
    for precision in ("float32", "float16"):
        network = OwnNetwork(precision=precision)
        outcome = train(network, data, recipe, seed=0, report=FakeReport(), compute=Compute(precision))
        assert (outcome.metrics["precision"], outcome.metrics["traces"]) == (precision, 1)
        results[precision] = outcome.metrics["loss"], network.trainable["kernel"].numpy()
    assert results["float16"][0] == pytest.approx(results["float32"][0], rel=0.01)
    np.testing.assert_allclose(results["float16"][1], results["float32"][1], atol=0.01)
    assert np.any(results["float16"][1] != results["float32"][1])
    assert np.abs(results["float32"][1] - 1.0).max() > 0.3  # it has moved


NET = ConvNet((ConvLayer(3, 3, 8, (), pool=True), ConvLayer(3, 3, 16, (0,), pool=True), ConvLayer(1, 3, 16, (0, 1))))


def digits(compute, **changes):
    recipe = Recipe(**({"batch_size": 32, "learning_rate": 0.05, "schedule": "cosine", "augment": False} | changes))
    report = FakeReport()
    outcome = ImageClassification("digits", recipe, compute=compute).evaluate(NET, seed=5, report=report)
    return outcome, [metrics["loss"] for _, metrics in report.epochs]


@pytest.fixture(scope="module")
def plain_digits():
    return digits(Compute(), epochs=3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_child_learns_the_digits_in_half_precision_as_well(plain_digits, precision):
    (plain, plain_losses), (half, losses) = plain_digits, digits(Compute(precision), epochs=3)
    assert (half.metrics["precision"], half.metrics["traces"]) == (precision, 1)
    assert plain.metrics["val_accuracy"] > 0.8
    assert abs(half.metrics["val_accuracy"] - plain.metrics["val_accuracy"]) < 0.05
    assert losses == pytest.approx(plain_losses, abs=0.1) and losses != plain_losses


def test_only_a_step_for_xla_is_compiled():
    """XLA compiles no Python."""

    def through_python(logits, step):
        (same,) = tf.py_function(lambda logits: [logits], [logits], [tf.float32])
        return tf.ensure_shape(same, logits.shape)

    recipe = Recipe(epochs=1, batch_size=8)
    train(OwnNetwork(change=through_python), random_data(), recipe, seed=0, report=FakeReport())
    with pytest.raises(tf.errors.InvalidArgumentError, match="EagerPyFunc"):
        train(
            OwnNetwork(change=through_python),
            random_data(),
            recipe,
            seed=0,
            report=FakeReport(),
            compute=Compute(xla=True),
        )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_steps_compiled_by_xla_train_the_same(precision):
    few = {"epochs": 1, "num_train": 320}
    _, plain_losses = digits(Compute(precision), **few)
    xla, losses = digits(Compute(precision, xla=True), **few)
    assert (xla.metrics["precision"], xla.metrics["xla"], xla.metrics["traces"]) == (precision, True, 1)
    assert losses == pytest.approx(plain_losses, rel=1e-3 if precision == "float32" else 0.03)


def test_the_same_child_twice_is_bit_equal():
    results = []
    for _ in range(2):
        fresh_start(7)
        outcome = train(linear_network(), random_data(), Recipe(epochs=2, batch_size=8), seed=7, report=FakeReport())
        results.append(
            (outcome.reward, outcome.metrics, b"".join(weight.tobytes() for weight in outcome.weights.values()))
        )
    assert results[0] == results[1]


CHILDREN = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.devices import Compute
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.images.task import ImageClassification
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet

class Report:
    checkpoint = None

    def __init__(self):
        self.rows = []
    def __call__(self, epoch, **metrics):
        self.rows.append([epoch, metrics])
    def follow(self, steps_done):
        pass

nets = {
    "a": ConvNet((ConvLayer(3, 3, 8, (), pool=True), ConvLayer(3, 1, 8, (0,)), ConvLayer(1, 3, 8, (0, 1)))),
    "b": ConvNet((ConvLayer(5, 5, 4, ()), ConvLayer(3, 3, 8, ()))),
    "c": ConvNet((ConvLayer(1, 1, 16, ()),)),
}
recipe = Recipe(epochs=2, batch_size=32, schedule="cosine", augment=True, num_train=256, num_validation=100)
task = ImageClassification("digits", recipe, compute=Compute(**json.loads(sys.argv[3])))
for name in sys.argv[2]:
    report = Report()
    outcome = task.evaluate(nets[name], seed=2**31 - 1 - ord(name), report=report)
    digest = hashlib.sha256(b"".join(weight.tobytes() for weight in outcome.weights.values())).hexdigest()
print(json.dumps([outcome.reward, outcome.metrics, report.rows, digest]))
"""


@pytest.mark.parametrize("compute", [{}, {"precision": "bfloat16"}, {"xla": True}], ids=json.dumps)
def test_a_child_trained_third_in_a_worker_equals_the_same_child_alone(compute):
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", CHILDREN, ROOT, order, json.dumps(compute)],
            env=os.environ | environment(threads=1, gpu=None),
            stdout=subprocess.PIPE,
            text=True,
        )
        for order in ("a", "bca")
    ]
    printed = [process.communicate(timeout=SECONDS)[0] for process in processes]
    alone, third = map(json.loads, printed)
    assert alone == third
    reward, metrics, rows, _ = alone
    assert reward == metrics["val_accuracy"] ** 3 and len(rows) == 2 and metrics["traces"] == 1


def rewriting_is_off():
    return bool(tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False))


@pytest.mark.parametrize("devices, off", [([], True), (["GPU:0"], False)])
def test_on_a_processor_graphs_are_run_as_traced_while_a_child_is_trained(monkeypatch, devices, off):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices)
    trainer = ImageTrainer(OwnNetwork(), random_data(), Recipe(epochs=1, batch_size=8, augment=False), seed=0)
    found = []
    compiled = trainer._epoch()
    monkeypatch.setattr(trainer, "_epoch", lambda: lambda epoch: found.append(rewriting_is_off()) or compiled(epoch))
    trainer.train_epoch(0)
    assert found == [off] and not rewriting_is_off()
