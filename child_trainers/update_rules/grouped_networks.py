"""Many networks of one kind as one function, so that an accelerator computes all of them in one step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from automl.child_trainers.images.training import VALIDATION_BATCH
from automl.child_trainers.update_rules.flat_networks import EPSILON, FILTERS, MOMENTUM, ConvChild, FlatNetwork


class GroupedNetwork(Protocol):
    """Networks with weights of their own. Each member computes what the single network computes with its weights.

    Attributes:
        single: the network of one member.
        dtype: of weights, states and losses: "float32" or "float64".
        step_values: how many numbers a member's step keeps for its gradient, about.
    """

    dtype: str
    step_values: int

    @property
    def single(self) -> FlatNetwork: ...

    def epoch_states(self, states: tf.Tensor) -> tf.Tensor:
        """The states at the start of an epoch, (members, state size), given those at the end of the previous epoch."""

    def plans(self, seeds: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
        """The random choices of each member's epoch, (members, …). Everything random is drawn here, since XLA draws
        other numbers than TensorFlow.

        Args:
            seeds, epochs: int32 (members,).
        """

    def gradients(
        self, weights: tf.Tensor, states: tf.Tensor, plans: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The mean loss of each member in nats, (members,), its gradient with respect to the member's weights,
        (members, size), and the states after the step.

        Args:
            step: from 0 within the epoch.
        """

    def validate(self, weights: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """The metric of each member on the validation data, (members,)."""


class ConvChildren:
    """Several `ConvChild` networks, whose convolutions are the groups of one convolution."""

    def __init__(self, single: ConvChild, dtype: str = "float32") -> None:
        self.single = single
        self.dtype = dtype
        _, height, width, channels = single.data.x_train.shape
        # Before and after each operation of the first layer; the second has a quarter of the positions.
        self.step_values = single.batch_size * height * width * (channels + 8 * FILTERS)

    def epoch_states(self, states: tf.Tensor) -> tf.Tensor:
        return states

    def plans(self, seeds: tf.Tensor, epochs: tf.Tensor) -> tf.Tensor:
        def plan(member: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            return self.single.plan(*member)

        return tf.map_fn(plan, (seeds, epochs), fn_output_signature=tf.int32)

    def gradients(
        self, weights: tf.Tensor, states: tf.Tensor, plans: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        data, size, members = self.single.data, self.single.batch_size, weights.shape[0]
        indices = tf.slice(plans, (0, step * size), (members, size))
        labels = tf.gather(data.y_train, indices)
        images = tf.transpose(
            tf.gather(data.x_train, indices), (1, 2, 3, 0, 4)
        )  # batch, height, width, members, channels
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, averages = self._pass(images, unflatten_each(weights, self.single.shapes), None)
            losses = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), axis=1)
        return losses, tape.gradient(losses, weights), MOMENTUM * states + (1.0 - MOMENTUM) * averages

    def validate(self, weights: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        """The accuracies, or NaN where weights are not finite; see `ConvChild.validate`."""
        x, y = self.single.data.x_validation, self.single.data.y_validation
        named = unflatten_each(weights, self.single.shapes)
        averages = unflatten_each(states, self.single.state_shapes)
        count, members = int(x.shape[0]), weights.shape[0]
        # Every batch has the same shape, as XLA needs it. The last one begins earlier; its first images do not count.
        size = min(count, VALIDATION_BATCH)

        def body(start: tf.Tensor, correct: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            first = tf.minimum(start, count - size)
            images, labels = (
                tf.slice(part, [first] + [0] * (part.ndim - 1), [size, *part.shape[1:]]) for part in (x, y)
            )
            shared = tf.repeat(images[:, :, :, tf.newaxis], members, axis=3)
            logits, _ = self._pass(shared, named, averages)
            right = tf.argmax(logits, axis=2, output_type=labels.dtype) == labels
            counts = tf.logical_and(right, tf.range(size) >= start - first)
            return start + size, correct + tf.math.count_nonzero(counts, axis=1, dtype=tf.int32)

        start = (tf.constant(0), tf.zeros(members, tf.int32))
        _, correct = tf.while_loop(lambda start, _: start < count, body, start)
        finite = tf.reduce_all(tf.math.is_finite(weights), axis=1)
        return tf.where(finite, tf.cast(correct, weights.dtype) / count, math.nan)

    def _pass(
        self, images: tf.Tensor, weights: Mapping[str, tf.Tensor], averages: Mapping[str, tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits, (members, batch, classes), and the batch's means and variances, (members, state size). Normalizes by
        `averages` if given, else by the batch's.

        Args:
            images: (batch, height, width, members, channels).
        """
        batch, _, _, members, _ = images.shape
        x = _channels(tf.cast(images, self.dtype))
        statistics = []
        for index in range(2):
            # One group of filters for each member: its depth is that of the images of one member.
            kernel = tf.transpose(weights[f"conv{index}/kernel"], (1, 2, 3, 0, 4))
            x = tf.nn.conv2d(x, _channels(kernel), 1, "SAME")
            of_each = [weights[f"conv{index}/{name}"] for name in ("gamma", "beta")]
            if averages is not None:
                of_each += [averages[f"conv{index}/moving_{name}"] for name in ("mean", "variance")]
            x, mean, variance = _normalized(x, *(tf.reshape(part, (-1,)) for part in of_each))
            statistics += [tf.reshape(part, (members, FILTERS)) for part in (mean, variance)]
            x = tf.nn.relu(_pooled(x))  # as in `ConvChild`: ReLU after pooling is the same and cheaper
        features = tf.transpose(tf.reshape(x, (batch, *x.shape[1:3], members, FILTERS)), (3, 0, 1, 2, 4))
        logits = tf.reshape(features, (members, batch, -1)) @ weights["dense/kernel"]
        return logits + weights["dense/bias"][:, tf.newaxis], tf.concat(statistics, axis=1)


def unflatten_each(vectors: tf.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tf.Tensor]:
    """The parts of each member's vector by name, (members, *shape) each.

    Args:
        vectors: (members, size).
    """
    parts = tf.split(vectors, [math.prod(shape) for shape in shapes.values()], axis=1)
    members = vectors.shape[0]
    return {
        name: tf.reshape(part, (members, *shape)) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def _channels(x: tf.Tensor) -> tf.Tensor:
    """Joins the last two dimensions, members and channels."""
    return tf.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def _normalized(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    mean: tf.Tensor | None = None,
    variance: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch normalization of every channel, with the mean and the variance of the batch. The variance is the unbiased
    one, as moving averages take it. The fused operation exists in float32 only."""
    if x.dtype == tf.float32:
        given = {} if mean is None else {"mean": mean, "variance": variance}
        fused: tuple[tf.Tensor, tf.Tensor, tf.Tensor] = tf.compat.v1.nn.fused_batch_norm(
            x, scale, offset, epsilon=EPSILON, is_training=mean is None, **given
        )
        return fused
    if mean is not None:
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, EPSILON), mean, variance
    mean, variance = tf.nn.moments(x, (0, 1, 2))
    count = math.prod(x.shape[:3])
    unbiased = variance * (count / max(count - 1, 1))
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, EPSILON), mean, unbiased


def _pooled(x: tf.Tensor) -> tf.Tensor:
    """The maximum of each 2 x 2 window. If several elements are the maximum, the gradient is that of the first, as in
    TensorFlow's pooling on a processor; that of XLA and of cuDNN would be another one's.

    Args:
        x: (batch, height, width, channels); an odd last row or column is dropped.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    rows = [x[:, row:height:2, column:width:2] for row in range(2) for column in range(2)]
    upper, lower = (tf.where(rows[first] >= rows[first + 1], rows[first], rows[first + 1]) for first in (0, 2))
    return tf.where(upper >= lower, upper, lower)
