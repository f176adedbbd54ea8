"""The networks that update rules train, as functions of one flat vector of weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from automl.child_trainers.images.training import VALIDATION_BATCH, batches, cross_entropy
from automl.child_trainers.images.training import DeviceData as DeviceImages
from automl.child_trainers.text.model import LanguageModel, State, initial_weights, weight_shapes
from automl.child_trainers.text.training import DeviceText, step_gradients, steps_per_epoch, text_loss
from automl.search_spaces.update_rule.semantics import STREAMS, counters

MOMENTUM = 0.9  # of moving averages: an epoch has few steps
EPSILON = 1e-3
FILTERS = 32


class FlatNetwork(Protocol):
    """A network whose weights are one vector, so that a rule changes all of them in one operation. Its state, which
    training changes without the rule, is a second vector.

    Attributes:
        shapes: of the weights by name, in the vector's order.
        state_shapes: likewise, of the state.
        keeps_state: whether a trained model needs the state, too.
        steps_per_epoch: number of training steps in an epoch.
    """

    shapes: Mapping[str, tuple[int, ...]]
    state_shapes: Mapping[str, tuple[int, ...]]
    keeps_state: bool
    steps_per_epoch: int

    def initial(self, seed: int) -> np.ndarray:
        """The weights before training, float32 (size,)."""

    def initial_state(self) -> np.ndarray:
        """The state before the first step, float32."""

    def epoch_state(self, state: tf.Tensor) -> tf.Tensor:
        """The state at the start of an epoch, given the state at the end of the previous epoch."""

    def plan(self, seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The random choices of an epoch, from an int32 seed and the epoch's number: an order of the data, or the seeds
        of later draws."""

    def gradient(
        self, weights: tf.Tensor, state: tf.Tensor, plan: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The mean loss in nats of a step, its gradient with respect to the weights, and the state after the step.

        Args:
            step: from 0 within the epoch.
        """

    def validate(self, weights: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """The network's metric on the validation data, float32 scalar."""


class ConvChild:
    """Two convolutions of 32 filters 3 x 3, each with batch normalization, ReLU and pooling, and a dense layer.

    Source: Bello et al. 2017 (arXiv:1709.07417), section 4.1, which does not say where it pools.

    Attributes:
        data: as given.
        batch_size: images per step; at most as many as there are.
    """

    keeps_state = True  # moving averages

    def __init__(self, data: DeviceImages, num_classes: int, batch_size: int) -> None:
        count, height, width, channels = data.x_train.shape
        self.data = data
        self.batch_size, self.steps_per_epoch = batches(count, batch_size)
        features = FILTERS * (height // 4) * (width // 4)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            "conv0/kernel": (3, 3, channels, FILTERS),
            "conv0/gamma": (FILTERS,),
            "conv0/beta": (FILTERS,),
            "conv1/kernel": (3, 3, FILTERS, FILTERS),
            "conv1/gamma": (FILTERS,),
            "conv1/beta": (FILTERS,),
            "dense/kernel": (features, num_classes),
            "dense/bias": (num_classes,),
        }
        averages = [f"conv{index}/moving_{name}" for index in range(2) for name in ("mean", "variance")]
        self.state_shapes: Mapping[str, tuple[int, ...]] = dict.fromkeys(averages, (FILTERS,))

    def initial(self, seed: int) -> np.ndarray:
        """Normal weights, scaled as in He et al. 2015 for the convolutions and as in Glorot & Bengio 2010 for the dense
        layer."""
        generator = np.random.Generator(np.random.PCG64(seed))
        parts = []
        for name, shape in self.shapes.items():
            if name.endswith("kernel"):
                fan_in = math.prod(shape[:-1])
                variance = 2.0 / fan_in if name.startswith("conv") else 2.0 / (fan_in + shape[-1])
                parts.append(generator.standard_normal(math.prod(shape)) * math.sqrt(variance))
            else:
                parts.append(np.full(shape, 1.0 if name.endswith("gamma") else 0.0))
        return np.concatenate(parts).astype(np.float32)

    def initial_state(self) -> np.ndarray:
        return np.tile(np.repeat(np.array([0.0, 1.0], np.float32), FILTERS), 2)

    def epoch_state(self, state: tf.Tensor) -> tf.Tensor:
        return state

    def plan(self, seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        count = int(self.data.x_train.shape[0])
        return tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.stack([seed, epoch]))

    def gradient(
        self, weights: tf.Tensor, state: tf.Tensor, plan: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = self.batch_size
        indices = tf.ensure_shape(plan[step * size : (step + 1) * size], (size,))
        images, labels = tf.gather(self.data.x_train, indices), tf.gather(self.data.y_train, indices)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, batch_averages = self._pass(images, unflatten(weights, self.shapes), None)
            loss = cross_entropy(logits, labels)
        state = MOMENTUM * state + (1.0 - MOMENTUM) * batch_averages
        return loss, tape.gradient(loss, weights), state

    def validate(self, weights: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """The accuracy, in [0, 1], or NaN if weights are not finite. The loss of the last step was computed before its
        update, so it does not show this."""
        x, y = self.data.x_validation, self.data.y_validation
        named, averages = unflatten(weights, self.shapes), unflatten(state, self.state_shapes)
        count = int(x.shape[0])

        def body(start: tf.Tensor, correct: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            end = start + VALIDATION_BATCH
            logits, _ = self._pass(x[start:end], named, averages)
            predicted = tf.argmax(logits, axis=1, output_type=y.dtype)
            return end, correct + tf.math.count_nonzero(predicted == y[start:end], dtype=tf.int32)

        _, correct = tf.while_loop(lambda start, _: start < count, body, (tf.constant(0), tf.constant(0)))
        finite = tf.reduce_all(tf.math.is_finite(weights))
        return tf.where(finite, tf.cast(correct, tf.float32) / count, math.nan)

    @staticmethod
    def _pass(
        x: tf.Tensor, weights: Mapping[str, tf.Tensor], averages: Mapping[str, tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits, and the batch's means and variances. Normalizes by `averages` if given, else by the batch's."""
        statistics = []
        for index in range(2):
            x = tf.nn.conv2d(x, weights[f"conv{index}/kernel"], 1, "SAME")
            scale, offset = weights[f"conv{index}/gamma"], weights[f"conv{index}/beta"]
            moving = {}
            if averages is not None:
                moving = {name: averages[f"conv{index}/moving_{name}"] for name in ("mean", "variance")}
            x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                x, scale, offset, epsilon=EPSILON, is_training=averages is None, **moving
            )
            statistics += [mean, variance]
            # ReLU and pooling commute; in this order ReLU is applied to a quarter of the values.
            x = tf.nn.relu(tf.nn.max_pool2d(x, 2, 2, "VALID"))
        features = tf.reshape(x, (-1, weights["dense/kernel"].shape[0]))
        return features @ weights["dense/kernel"] + weights["dense/bias"], tf.concat(statistics, axis=0)


def keras_child(
    input_shape: tuple[int, ...], num_classes: int, *, weights: Mapping[str, np.ndarray] | None = None
) -> keras.Model:
    """A `ConvChild` as a Keras model, from standardized images to logits. It gets these weights, if they are given."""
    layers: list[keras.layers.Layer] = []
    for index in range(2):
        layers += [
            keras.layers.Conv2D(FILTERS, 3, padding="same", use_bias=False, name=f"conv{index}"),
            keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON),
            keras.layers.ReLU(),
            keras.layers.MaxPool2D(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    model = keras.Sequential([keras.Input(input_shape), *layers], name="child")
    if weights is None:
        return model
    parts = ("kernel", "gamma", "beta", "moving_mean", "moving_variance")
    names = [*(f"conv{index}/{part}" for index in range(2) for part in parts), "dense/kernel", "dense/bias"]
    model.set_weights([weights[name] for name in names])
    return model


class TextChild:
    """A language model, trained by truncated back-propagation. Its state is the state of its recurrent layers.

    Args:
        model: defines cell, sizes and recipe; its weights are not used.

    Attributes:
        model, data: as given.
        batch: number of streams.
    """

    keeps_state = False  # it is the state after the last training step

    def __init__(self, model: LanguageModel, data: DeviceText) -> None:
        self.model = model
        self.data = data
        self.shapes: Mapping[str, tuple[int, ...]] = weight_shapes(
            model.cell, model.num_types, model.units, model.recipe
        )
        self.batch = int(data.streams.shape[1])
        self._layers = model.recipe.layers
        shape = (self.batch, model.units)
        self.state_shapes: Mapping[str, tuple[int, ...]] = {
            f"layer{index}/{name}": shape for index in range(self._layers) for name in "hc"
        }
        self.steps_per_epoch = steps_per_epoch(data, model.recipe)

    def initial(self, seed: int) -> np.ndarray:
        model = self.model
        weights = initial_weights(model.cell, model.num_types, model.units, model.recipe, seed=seed)
        return np.concatenate([weights[name].ravel() for name in self.shapes])

    def initial_state(self) -> np.ndarray:
        return np.zeros(sum(math.prod(shape) for shape in self.state_shapes.values()), np.float32)

    def epoch_state(self, state: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(state)

    def plan(self, seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        return tf.stack([seed, epoch * self.steps_per_epoch])

    @staticmethod
    def seed(plan: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The seed of a step's draws, int32 (2,)."""
        return tf.stack([plan[0], (plan[1] + step) * 64])

    def gradient(
        self, weights: tf.Tensor, state: tf.Tensor, plan: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        unroll, streams = self.model.recipe.unroll, self.data.streams
        first = step * unroll
        inputs = tf.ensure_shape(streams[first : first + unroll], (unroll, self.batch))
        targets = tf.ensure_shape(streams[first + 1 : first + unroll + 1], (unroll, self.batch))
        model, seed = self._with(weights), self.seed(plan, step)
        loss, gradients, after = step_gradients(model, inputs, targets, self._layer_states(state), seed)
        flat = [tf.reshape(tf.convert_to_tensor(gradients[name]), (-1,)) for name in self.shapes]
        return (
            loss,
            tf.concat(flat, axis=0),
            tf.concat([tf.reshape(part, (-1,)) for layer in after for part in layer], axis=0),
        )

    def validate(self, weights: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """The perplexity of the validation text, read as one stream."""
        return tf.exp(text_loss(self._with(weights), self.data.validation))

    def _with(self, weights: tf.Tensor) -> LanguageModel:
        model = copy.copy(self.model)
        model.trainable = unflatten(weights, self.shapes)
        return model

    def _layer_states(self, state: tf.Tensor) -> State:
        parts = list(unflatten(state, self.state_shapes).values())
        return list(zip(parts[::2], parts[1::2], strict=True))


def unflatten(vector: tf.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tf.Tensor]:
    """The parts of a vector by name, in these shapes."""
    parts = tf.split(vector, [math.prod(shape) for shape in shapes.values()])
    return {name: tf.reshape(part, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def rule_counters(shapes: Mapping[str, tuple[int, ...]]) -> list[tf.Tensor]:
    """The counters of a rule's random numbers, one vector for each of the STREAMS of these weights. They are those of
    the rule as a Keras optimizer."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    return [
        tf.concat([counters(size, STREAMS * index + stream) for index, size in enumerate(sizes)], axis=0)
        for stream in range(STREAMS)
    ]
