"""Trains an image classifier: data on the device, one compiled epoch, one compiled validation, no input pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from child_trainers.data.dataset import ImageData
from child_trainers.recipes import Recipe
from child_trainers.task import DivergedError, Outcome, Report
from child_trainers.whitening import whitening

PADDING = 4  # pixels on each side before the random crop
VALIDATION_BATCH = 512


class DeviceData(NamedTuple):
    """Whitened images and labels as tensors on the device, shared by all children of a worker."""

    x_train: tf.Tensor  # float32 (count, height, width, channels)
    y_train: tf.Tensor  # int32 (count,)
    x_validation: tf.Tensor
    y_validation: tf.Tensor


def to_device(data: ImageData) -> DeviceData:
    """Whitens the images once, by the layer that an exported model starts with."""
    layer = whitening(data.input_shape)

    def whitened(x: np.ndarray) -> tf.Tensor:
        parts = [layer(x[start : start + 4096].astype(np.float32)) for start in range(0, len(x), 4096)]
        return tf.concat(parts, axis=0)

    return DeviceData(
        whitened(data.x_train),
        tf.constant(data.y_train),
        whitened(data.x_validation),
        tf.constant(data.y_validation),
    )


def train(model: keras.Model, data: DeviceData, recipe: Recipe, *, seed: int, report: Report) -> Outcome:
    """Trains a model from images to logits and returns its reward.

        reward = max(validation accuracies of the last epochs)^3

    The outcome's weights are those of the best of these epochs, the first of equals.

    Raises:
        DivergedError: the training loss of an epoch is not finite.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 4.1.
    """
    trainer = Trainer(model, data, recipe, seed)
    best, best_epoch, best_weights, train_loss = -1.0, 0, [], 0.0
    for epoch in range(1, recipe.epochs + 1):
        train_loss = trainer.train_epoch(epoch - 1)
        report.step(trainer.steps_per_epoch)
        if not np.isfinite(train_loss):
            raise DivergedError(f"The training loss of epoch {epoch} is {train_loss}.")
        accuracy = trainer.validate()
        report(epoch, val_accuracy=accuracy, loss=train_loss)
        # The paper cubes the best of the *last* epochs; the best of all would favour children that peak early and then
        # diverge.
        if epoch > recipe.epochs - recipe.last_epochs and accuracy > best:
            best, best_epoch = accuracy, epoch
            best_weights = model.get_weights()
    metrics = {"val_accuracy": best, "epoch": best_epoch, "loss": train_loss, "traces": trainer.traces}
    return Outcome(best**3, metrics, name_weights(best_weights), best_epoch)


class Trainer:
    """One child's compiled steps. Two traces: an epoch of training, and a batch of validation."""

    def __init__(self, model: keras.Model, data: DeviceData, recipe: Recipe, seed: int) -> None:
        self._model = model
        self._data = data
        self._recipe = recipe
        self._seed = seed
        count = int(data.x_train.shape[0])
        self._batch_size = min(recipe.batch_size, count)
        self.steps_per_epoch = count // self._batch_size
        self.traces = 0
        self._variables = [variable.value for variable in model.trainable_variables]
        self._decayed = [len(variable.shape) > 1 for variable in self._variables]
        self._velocities = [tf.Variable(tf.zeros_like(variable)) for variable in self._variables]
        self._epoch = tf.function(self._train_epoch)
        # A batch of any size, since the last one may be smaller and would be traced again.
        batch = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in (data.x_validation, data.y_validation)]
        self._correct = tf.function(self._count_correct, input_signature=batch)

    def train_epoch(self, epoch: int) -> float:
        """One pass over the shuffled images, epochs from 0; returns the mean loss in nats."""
        return float(self._epoch(tf.constant(epoch)))

    def validate(self) -> float:
        """Accuracy on the validation images, in [0, 1]."""
        x, y = self._data.x_validation, self._data.y_validation
        count = int(x.shape[0])
        correct = sum(
            int(self._correct(x[start : start + VALIDATION_BATCH], y[start : start + VALIDATION_BATCH]))
            for start in range(0, count, VALIDATION_BATCH)
        )
        return correct / count

    def _train_epoch(self, epoch: tf.Tensor) -> tf.Tensor:
        self.traces += 1
        steps, size = self.steps_per_epoch, self._batch_size
        count = int(self._data.x_train.shape[0])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=[self._seed, epoch])

        # Not a Python loop: AutoGraph, which would turn it into this one, does nothing under Python 3.13.
        def body(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            indices = tf.gather(order, step * size + tf.range(size))
            images, labels = tf.gather(self._data.x_train, indices), tf.gather(self._data.y_train, indices)
            number = epoch * steps + step
            if self._recipe.augment:
                images = augment(images, tf.stack([self._seed, number]))
            return step + 1, total + self._train_step(images, labels, self._learning_rate(number))

        _, total = tf.while_loop(lambda step, _: step < steps, body, (tf.constant(0), tf.constant(0.0)))
        return total / steps

    def _train_step(self, images: tf.Tensor, labels: tf.Tensor, learning_rate: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = self._model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, self._variables)
        recipe = self._recipe
        for variable, velocity, gradient, decayed in zip(
            self._variables, self._velocities, gradients, self._decayed, strict=True
        ):
            if decayed:
                gradient += recipe.weight_decay * variable
            # v' = momentum * v - rate * g;  w' = w + momentum * v' - rate * g   (Nesterov), in one operation
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=learning_rate,
                grad=gradient,
                momentum=recipe.momentum,
                use_nesterov=True,
            )
        return loss

    def _learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        return learning_rate(self._recipe, step, self._recipe.epochs * self.steps_per_epoch)

    def _count_correct(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        self.traces += 1
        predictions = tf.argmax(self._model(images, training=False), axis=1, output_type=labels.dtype)
        return tf.reduce_sum(tf.cast(predictions == labels, tf.int32))


def learning_rate(recipe: Recipe, step: tf.Tensor, total_steps: int) -> tf.Tensor:
    """The rate at a step from 0, float32 scalar.

    `steps`: a tenth from half of the steps on, a hundredth from three quarters on (Huang et al. 2017, DenseNet, section
    4.2). `cosine`: rate * (1 + cos(pi * t / T)) / 2 (Loshchilov & Hutter 2017).
    """
    done = tf.cast(step, tf.float32) / total_steps
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1.0 + tf.cos(np.pi * done))
    return recipe.learning_rate * tf.where(done < 0.5, 1.0, tf.where(done < 0.75, 0.1, 0.01))


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Zero-pads by 4 pixels, crops each image at its own place, and flips half of them left-right.

    Args:
        images: float32 (batch, height, width, channels).
        seed: int32 (2,); equal seeds give equal images.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 4.1, after He et al. 2016.
    """
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    offsets = tf.random.stateless_uniform((2, batch), seed, 0, 2 * PADDING + 1, tf.int32)
    flipped = tf.random.stateless_uniform((batch,), seed + [1, 0]) < 0.5
    rows = offsets[0][:, tf.newaxis] + tf.range(height)
    columns = offsets[1][:, tf.newaxis] + tf.range(width)
    columns = tf.where(flipped[:, tf.newaxis], columns[:, ::-1], columns)
    padded = tf.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    return tf.gather(tf.gather(padded, rows, batch_dims=1, axis=1), columns, batch_dims=1, axis=2)


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Accuracy in [0, 1] of any model from raw images to logits."""
    correct = 0
    for start in range(0, len(x), VALIDATION_BATCH):
        logits = np.asarray(model(x[start : start + VALIDATION_BATCH].astype(np.float32), training=False))
        correct += int((logits.argmax(axis=1) == y[start : start + VALIDATION_BATCH]).sum())
    return correct / len(y)


def name_weights(weights: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A model's weights by name, in their order."""
    return {f"weight{index:04d}": np.asarray(weight) for index, weight in enumerate(weights)}


def ordered_weights(named: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The weights of `name_weights` in a model's order."""
    return [named[name] for name in sorted(named)]
