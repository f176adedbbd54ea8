"""A softmax over a sample of the vocabulary, and gradients of the rows of a matrix that were read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from automl.child_trainers.text.model import LanguageModel


class Rows(NamedTuple):
    """Rows of a matrix, and which they are."""

    indices: tf.Tensor  # int32 (count,)
    values: tf.Tensor  # float32, or their gradients; as many rows in whatever shape


def draw_types(count: int, num_types: int, seed: tf.Tensor) -> tf.Tensor:
    """Types to stand for all, int32 (count,), with repeats: half by Zipf's law of their ranks, half uniformly."""
    uniform = tf.random.stateless_uniform((count,), seed + [0, 63])
    half = count // 2
    by_rank = tf.exp(uniform[:half] * math.log(num_types + 1.0)) - 1.0
    drawn = tf.concat([by_rank, uniform[half:] * num_types], axis=0)
    return tf.minimum(tf.cast(drawn, tf.int32), num_types - 1)


def expected_counts(types: tf.Tensor, count: int, num_types: int) -> tf.Tensor:
    """How often each of these types is among `count` that `draw_types` draws, on average; float32."""
    half = count // 2
    rank = tf.cast(types, tf.float32)
    by_rank = tf.math.log((rank + 2.0) / (rank + 1.0)) / math.log(num_types + 1.0)
    return half * by_rank + (count - half) / num_types


def sampled_losses(model: LanguageModel, hidden: tf.Tensor, rows: Rows, biases: Rows, *, num_labels: int) -> tf.Tensor:
    """The cross-entropy of each token, float32 (num_labels,), with an unbiased estimate of what it is divided by.

        Z = exp(o_y) + sum over drawn s, other than y, of exp(o_s) / (how often s is drawn on average)

    Args:
        rows, biases: of the softmax, first those of the labels, then those of the drawn types.

    Source: Bengio & Senécal 2008, "Adaptive importance sampling to accelerate training of a neural probabilistic
    language model", section III, with the label's own share exact; Jean et al. 2015 (arXiv:1412.2007), section 3.
    """
    labels, drawn = rows.indices[:num_labels], rows.indices[num_labels:]
    own = tf.reduce_sum(hidden * rows.values[:num_labels], axis=1) + biases.values[:num_labels]
    rarity = tf.math.log(expected_counts(drawn, drawn.shape[0], model.num_types))
    others = model.product(hidden, rows.values[num_labels:], transpose_b=True) + biases.values[num_labels:] - rarity
    others = tf.where(labels[:, tf.newaxis] == drawn, -1e9, others)
    return tf.reduce_logsumexp(tf.concat([own[:, tf.newaxis], others], axis=1), axis=1) - own


def add_rows(
    parts: Sequence[Rows], shape: tf.TensorShape, whole: tf.Tensor | None = None
) -> tf.Tensor | tf.IndexedSlices:
    """The gradient of a matrix of which rows were taken, each row once: only then are its norm and its update right.

    Args:
        whole: the gradient of the matrix itself, where it was read otherwise too.
    """
    indices = tf.concat([part.indices for part in parts], axis=0)
    values = tf.concat([tf.reshape(part.values, (-1, *shape[1:])) for part in parts], axis=0)
    if whole is not None:
        return tf.tensor_scatter_nd_add(whole, indices[:, tf.newaxis], values)
    types, places = tf.unique(indices)
    summed = tf.math.unsorted_segment_sum(values, places, tf.shape(types)[0])
    return tf.IndexedSlices(summed, types, tf.constant(shape.as_list()))
