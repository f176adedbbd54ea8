"""Trains an image classifier: data on the device, one compiled epoch, no input pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from automl.child_trainers.data.dataset import ImageData
from automl.child_trainers.devices import FLOAT32, Compute
from automl.child_trainers.images.networks import Network
from automl.child_trainers.images.standardization import Brightness, standardization
from automl.child_trainers.outcome import Outcome
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.task import Objective, Report
from automl.child_trainers.training.trainer import Trainer, train_epochs
from automl.child_trainers.training.updates import KerasUpdate, Nesterov, Update

PADDING = 4  # pixels on each side before the random crop
VALIDATION_BATCH = 128  # images; validation is not traced, so all their feature maps are in memory at once


class DeviceData(NamedTuple):
    """Standardized images and their labels as tensors on the device, shared by all children of a worker."""

    x_train: tf.Tensor  # float32 (count, height, width, channels)
    y_train: tf.Tensor  # int32 (count,)
    x_validation: tf.Tensor  # likewise
    y_validation: tf.Tensor


def batches(num_images: int, batch_size: int) -> tuple[int, int]:
    """The images in a step, at most `num_images`, and the steps in an epoch, which drops the remaining images."""
    size = min(batch_size, num_images)
    return size, num_images // size


def to_device(data: ImageData, brightness: Brightness | None = None) -> DeviceData:
    """Standardizes all images once, with the layer that an exported model starts with; see `standardization`."""
    layer = standardization(data.input_shape, brightness)

    def standardized(x: np.ndarray) -> tf.Tensor:
        parts = [layer(x[start : start + 4096].astype(np.float32)) for start in range(0, len(x), 4096)]
        return tf.concat(parts, axis=0)

    return DeviceData(
        standardized(data.x_train),
        tf.constant(data.y_train),
        standardized(data.x_validation),
        tf.constant(data.y_validation),
    )


def train(
    network: Network,
    data: DeviceData,
    recipe: Recipe,
    *,
    seed: int,
    report: Report,
    compute: Compute = FLOAT32,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> Outcome:
    """Trains a network and returns its reward.

        reward = max(validation accuracies of the last epochs)^3

    The outcome's weights are those of the best of these epochs (of the first, if several are equal).

    Args:
        optimizer: used instead of the recipe's, with its own learning rate. The recipe's weight decay always applies.

    Raises:
        DivergedError: the training loss of a step is not finite.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 4.1.
    """
    trainer = ImageTrainer(network, data, recipe, seed, compute, optimizer)
    # The paper takes the best of the *last* epochs; the best of all would favour children that peak early and diverge.
    last = max(1, recipe.epochs - recipe.last_epochs + 1)
    trained = train_epochs(trainer, report, Objective("val_accuracy", True, recipe.epochs), counting_from=last)
    best = trained.history[trained.epoch - 1]["val_accuracy"]
    metrics = {
        "val_accuracy": best,
        "epoch": trained.epoch,
        "loss": trained.history[-1]["loss"],
        "traces": trainer.traces,
    }
    return Outcome(
        best**3, metrics | dataclasses.asdict(compute), trained.weights, trained.epoch, dict(trainer.seconds)
    )


class ImageTrainer(Trainer):
    """Trains one classifier. Its only trace is a compiled epoch of training."""

    def __init__(
        self,
        network: Network,
        data: DeviceData,
        recipe: Recipe,
        seed: int,
        compute: Compute = FLOAT32,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        if optimizer is not None and compute.devices > 1:
            raise ValueError("A network with an optimizer of its own is trained on one GPU; drop --gpus-per-child.")
        self._network = network
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._batch_size, steps_per_epoch = batches(int(data.x_train.shape[0]), recipe.batch_size)
        if self._batch_size % compute.devices:
            raise ValueError(
                f"A batch of {self._batch_size} images cannot be divided among {compute.devices} devices "
                "(--gpus-per-child); choose another task.batch_size."
            )
        self._total_steps = recipe.epochs * steps_per_epoch
        with scope_of(compute):
            self._update: Update = (
                Nesterov(network, recipe.momentum) if optimizer is None else KerasUpdate(optimizer, network)
            )
            self._scale = LossScale() if compute.precision == "float16" else None
        slots = self._update.slots | ({} if self._scale is None else self._scale.variables)
        super().__init__(network, slots, steps_per_epoch)
        self._variables = list(network.trainable.values())
        self._decayed = [len(variable.shape) > 1 for variable in self._variables]
        self._strategy = strategy_of(compute)
        self._step = tf.function(self._train_step, jit_compile=True) if compute.xla else self._train_step

    def metrics(self) -> dict[str, float]:
        """Accuracy on the validation images, in [0, 1]."""
        with self._phase("validate"):
            # Not traced: for one child, tracing takes longer than starting its few operations one by one.
            data = self._data
            return {"val_accuracy": accuracy_of_logits(self._network.logits, data.x_validation, data.y_validation)}

    def _train_epoch(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, size = self.steps_per_epoch, self._batch_size
        count = int(self._data.x_train.shape[0])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=[self._seed, epoch])

        def train(step: tf.Tensor) -> tuple[tf.Tensor]:
            indices = tf.gather(order, step * size + tf.range(size))
            return (self._distributed_step(indices, epoch * steps + step),)

        return self._run_steps(train)

    def _distributed_step(self, indices: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """Trains a step and returns its mean loss. Several devices each train on an equal share of the batch."""
        if self._strategy is None:
            return self._step_on(indices, number)
        count = self._strategy.num_replicas_in_sync

        def on_device() -> tf.Tensor:
            share = self._batch_size // count
            first = tf.distribute.get_replica_context().replica_id_in_sync_group * share
            return self._step_on(tf.slice(indices, [first], [share]), number, first)

        return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, self._strategy.run(on_device), axis=None)

    def _step_on(self, indices: tf.Tensor, number: tf.Tensor, first: tf.Tensor | int = 0) -> tf.Tensor:
        """Trains a step on these images, which start at position `first` of the batch."""
        images, labels = tf.gather(self._data.x_train, indices), tf.gather(self._data.y_train, indices)
        if self._recipe.augment:
            images = augment(images, tf.stack([self._seed, number + self._total_steps * first]))
        return self._step(images, labels, self._learning_rate(number))

    def _train_step(self, images: tf.Tensor, labels: tf.Tensor, learning_rate: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(self._network.train_logits(images), labels)
            scaled = loss if self._scale is None else self._scale.apply(loss)
        gradients = tape.gradient(scaled, self._variables)
        if self._strategy is not None:
            replica = tf.distribute.get_replica_context()
            gradients = replica.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        if self._scale is not None:
            gradients = self._scale.remove(gradients)
        pairs = zip(gradients, self._variables, self._decayed, strict=True)
        decay = tf.constant(self._recipe.weight_decay, tf.float32)
        penalized = [g + decay * variable if decayed else g for g, variable, decayed in pairs]
        self._update.apply(dict(zip(self._network.trainable, penalized, strict=True)), learning_rate)
        return loss

    def _learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        return learning_rate(self._recipe, step, self._total_steps)


def strategy_of(compute: Compute) -> tf.distribute.Strategy | None:
    """The strategy that trains one child synchronously on several devices; None for one device."""
    return None if compute.devices == 1 else _mirrored(compute.devices)


@functools.cache  # two strategies in one process would mix up their messages
def _mirrored(count: int) -> tf.distribute.Strategy:
    available = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(available) < count:
        raise ValueError(f"A child was to be trained on {count} devices, but there are {len(available)}.")
    return tf.distribute.MirroredStrategy([device.name for device in available[:count]])


def scope_of(compute: Compute) -> contextlib.AbstractContextManager[Any]:
    """Context manager in which variables are created on every device that trains the child."""
    strategy = strategy_of(compute)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


class LossScale:
    """Dynamic loss scaling: keeps small gradients within the range of float16.

    The loss is multiplied by a scale. The scale doubles after a thousand good steps, and halves at a step whose
    gradients are not finite. Zeros replace the gradients of such a step.

    Source: Micikevicius et al. 2018 (arXiv:1710.03740), section 3.2.
    """

    PATIENCE = 1000

    def __init__(self) -> None:
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA  # all devices have the same, all-reduced gradients
        self._scale = tf.Variable(2.0**15, aggregation=once)
        self._good_steps = tf.Variable(0, aggregation=once)

    @property
    def variables(self) -> dict[str, tf.Variable]:
        return {"scale": self._scale, "good_steps": self._good_steps}

    def apply(self, loss: tf.Tensor) -> tf.Tensor:
        return loss * self._scale

    def remove(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients of the unscaled loss, all zeros if one is not finite. Updates the scale."""
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        unscaled = [tf.where(finite, gradient / self._scale, 0.0) for gradient in gradients]
        good = tf.where(finite, self._good_steps + 1, 0)
        grown = tf.where(good >= self.PATIENCE, self._scale * 2.0, self._scale)
        self._scale.assign(tf.where(finite, grown, tf.maximum(self._scale / 2.0, 1.0)))
        self._good_steps.assign(good % self.PATIENCE)
        return unscaled


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The mean loss in nats, float32 scalar.

    Keras and TensorFlow have this function. Where operations must be deterministic, theirs consists of a hundred
    operations, and tracing them takes longer than tracing a layer.

    Args:
        logits: float32 (batch, num_classes).
        labels: int32 (batch,); the batch size must be static.
    """
    log_likelihoods = tf.one_hot(labels, logits.shape[-1]) * tf.nn.log_softmax(logits)
    return tf.reduce_sum(log_likelihoods) / -labels.shape[0]


def learning_rate(recipe: Recipe, step: tf.Tensor, total_steps: int) -> tf.Tensor:
    """The learning rate at a step, numbered from 0; float32 scalar.

    `steps`: divides the rate by 10 at half of the steps, and again at three quarters (Huang et al. 2017, DenseNet,
    section 4.2). `cosine`: rate * (1 + cos(pi * t / T)) / 2 (Loshchilov & Hutter 2017).
    """
    progress = tf.cast(step, tf.float32) / total_steps
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1.0 + tf.cos(np.pi * progress))
    return recipe.learning_rate * tf.where(progress < 0.5, 1.0, tf.where(progress < 0.75, 0.1, 0.01))


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Zero-pads by 4 pixels, crops each image at a random position, and flips it left-right with probability 1/2.

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


def accuracy(model: Callable[[np.ndarray], Any], x: np.ndarray, y: np.ndarray) -> float:
    """The accuracy, in [0, 1], of any function from raw images, float32, to logits."""
    return accuracy_of_logits(lambda images: model(images.astype(np.float32)), x, y)


def accuracy_of_logits(logits_of: Callable[[Any], Any], x: Any, y: Any) -> float:
    """The accuracy, in [0, 1], of a function from images of `x` to logits. `x` and `y` are arrays or tensors."""
    correct = 0
    for start in range(0, len(x), VALIDATION_BATCH):
        end = start + VALIDATION_BATCH
        predicted = np.asarray(logits_of(x[start:end])).argmax(axis=1)
        correct += int((predicted == np.asarray(y[start:end])).sum())
    return correct / len(y)
