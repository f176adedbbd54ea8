"""A softmax over a sample of the vocabulary, and the gradients of those rows of a matrix that were read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from automl.child_trainers.text.model import LanguageModel


class Rows(NamedTuple):
    """Some rows of a matrix, and their indices."""

    indices: tf.Tensor  # int32 (count,)
    values: tf.Tensor  # float32, the rows or their gradients; any shape with `count` rows


def draw_types(count: int, num_types: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws types with replacement, int32 (count,): half by Zipf's law of their ranks, half uniformly."""
    uniform = tf.random.stateless_uniform((count,), seed + [0, 63])
    half = count // 2
    by_rank = tf.exp(uniform[:half] * math.log(num_types + 1.0)) - 1.0
    drawn = tf.concat([by_rank, uniform[half:] * num_types], axis=0)
    return tf.minimum(tf.cast(drawn, tf.int32), num_types - 1)


def expected_counts(types: tf.Tensor, count: int, num_types: int) -> tf.Tensor:
    """The expected number of times that `draw_types` draws each of these types among `count`; float32."""
    half = count // 2
    rank = tf.cast(types, tf.float32)
    by_rank = tf.math.log((rank + 2.0) / (rank + 1.0)) / math.log(num_types + 1.0)
    return half * by_rank + (count - half) / num_types


def sampled_losses(model: LanguageModel, hidden: tf.Tensor, rows: Rows, biases: Rows, *, num_labels: int) -> tf.Tensor:
    """The cross-entropy of each token in nats, float32 (num_labels,), with an unbiased estimate of the normalizer.

        Z = exp(o_y) + sum over drawn s, other than y, of exp(o_s) / (expected count of s)

    Args:
        hidden: float32 (num_labels, units), the outputs of the last layer.
        rows, biases: of the softmax, first those of the labels, then those of the drawn types.

    Source: Bengio & Senécal 2008, "Adaptive importance sampling to accelerate training of a neural probabilistic
    language model", section III, with the label's own term exact; Jean et al. 2015 (arXiv:1412.2007), section 3.
    """
    labels, drawn = rows.indices[:num_labels], rows.indices[num_labels:]
    label_logits = tf.reduce_sum(hidden * rows.values[:num_labels], axis=1) + biases.values[:num_labels]
    log_counts = tf.math.log(expected_counts(drawn, drawn.shape[0], model.num_types))
    logits = model.product(hidden, rows.values[num_labels:], transpose_b=True) + biases.values[num_labels:] - log_counts
    logits = tf.where(labels[:, tf.newaxis] == drawn, -1e9, logits)
    return tf.reduce_logsumexp(tf.concat([label_logits[:, tf.newaxis], logits], axis=1), axis=1) - label_logits


def add_rows(
    parts: Sequence[Rows], shape: tf.TensorShape, whole: tf.Tensor | None = None
) -> tf.Tensor | tf.IndexedSlices:
    """The gradient of a matrix whose rows were read. Gradients of the same row are summed, because the norm and the
    update of the matrix need each row once.

    Args:
        shape: of the matrix.
        whole: the gradient of the matrix from other uses, if there are any.
    """
    indices = tf.concat([part.indices for part in parts], axis=0)
    values = tf.concat([tf.reshape(part.values, (-1, *shape[1:])) for part in parts], axis=0)
    if whole is not None:
        return tf.tensor_scatter_nd_add(whole, indices[:, tf.newaxis], values)
    types, places = tf.unique(indices)
    summed = tf.math.unsorted_segment_sum(values, places, tf.shape(types)[0])
    return tf.IndexedSlices(summed, types, tf.constant(shape.as_list()))
