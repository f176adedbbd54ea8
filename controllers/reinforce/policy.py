"""The recurrent policy: a two-layer LSTM, one head per kind of decision, and set-selection attention for links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from automl.controllers.keyed import initial

# In the order of `Previous.mode`: what the next input of the LSTM is.
START, EMBEDDING, ANCHORS = 0, 1, 2


class Carry(NamedTuple):
    """What one step hands to the next. `anchors` are the top-layer outputs at the `Links` met so far."""

    hidden_0: tf.Tensor  # float32 (batch, units)
    cell_0: tf.Tensor
    hidden_1: tf.Tensor
    cell_1: tf.Tensor
    anchors: tf.Tensor  # float32 (batch, slots, units)


class Previous(NamedTuple):
    """The answer to the decision before."""

    mode: tf.Tensor  # int32 (batch,): START, EMBEDDING of a choice's option, or ANCHORS of the chosen links
    kind: tf.Tensor  # int32 (batch,), row of the head table
    token: tf.Tensor  # int32 (batch,)
    chosen: tf.Tensor  # float32 (batch, slots), 1 at the linked anchors


class Current(NamedTuple):
    """The decision to answer."""

    kind: tf.Tensor  # int32 (batch,), row of the head table; 0 for links
    allowed: tf.Tensor  # bool (batch, width): options that may be drawn
    slot: tf.Tensor  # float32 (batch, slots), 1 at the slot that a `Links` fills; 0 everywhere for a choice


class Weights(NamedTuple):
    """The policy's parameters, as tensors or arrays. Heads of kinds are rows of the three tables."""

    lstm_0: tf.Tensor  # (2 * units + 1, 4 * units): input, recurrent and bias rows; gates in the order i, f, g, o
    lstm_1: tf.Tensor
    start: tf.Tensor  # (units,), the first input
    nothing: tf.Tensor  # (units,), the input after links of which none was chosen
    previous_anchor: tf.Tensor  # (units, units), W_prev
    current_anchor: tf.Tensor  # (units, units), W_curr
    attention: tf.Tensor  # (units,), v
    embeddings: tf.Tensor  # (kinds, width, units)
    kernels: tf.Tensor  # (kinds, width, units)
    biases: tf.Tensor  # (kinds, width)


TABLES = ("embeddings", "kernels", "biases")


def lstm_cell(weights: tf.Tensor, inputs: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of an LSTM layer (Hochreiter & Schmidhuber 1997, with forget gates): new hidden and cell state."""
    gates = tf.matmul(tf.concat([inputs, hidden], axis=1), weights[:-1]) + weights[-1]
    input_gate, forget_gate, candidate, output_gate = tf.split(gates, 4, axis=1)
    cell = tf.sigmoid(forget_gate) * cell + tf.sigmoid(input_gate) * tf.tanh(candidate)
    return tf.sigmoid(output_gate) * tf.tanh(cell), cell


def attention_logits(
    anchors: tf.Tensor, current: tf.Tensor, w_previous: tf.Tensor, w_current: tf.Tensor, v: tf.Tensor
) -> tf.Tensor:
    """Log-odds that each earlier layer j feeds each current layer i.

        logit P(j feeds i) = v^T tanh(W_prev h_j + W_curr h_i)

    Args:
        anchors: float32 (batch, slots, units), h_j.
        current: float32 (batch, layers, units), h_i.

    Returns:
        float32 (batch, layers, slots). Gradients flow into the anchors.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.3.
    """
    previous = tf.matmul(anchors, w_previous)[:, tf.newaxis, :, :]
    mixed = tf.tanh(previous + tf.matmul(current, w_current)[:, :, tf.newaxis, :])
    return tf.reduce_sum(mixed * v, axis=3)


def embed(weights: Weights, kind: tf.Tensor, token: tf.Tensor) -> tf.Tensor:
    """float32 (…, units): the embedding of an option."""
    width, units = weights.embeddings.shape[1:]
    return tf.gather(tf.reshape(weights.embeddings, (-1, units)), kind * width + token)


def next_input(
    weights: Weights, anchors: tf.Tensor, mode: tf.Tensor, embedded: tf.Tensor, chosen: tf.Tensor
) -> tf.Tensor:
    """float32 (batch, units): the embedding of the option taken, or the mean of the anchors chosen."""
    total = tf.matmul(chosen[:, tf.newaxis, :], anchors)[:, 0, :]
    count = tf.reduce_sum(chosen, axis=1, keepdims=True)
    mean = tf.where(count > 0, total / tf.maximum(count, 1.0), weights.nothing)
    mode = mode[:, tf.newaxis]
    return tf.where(mode == EMBEDDING, embedded, tf.where(mode == ANCHORS, mean, weights.start))


def advance(weights: Weights, carry: Carry, inputs: tf.Tensor, slot: tf.Tensor) -> Carry:
    """Both LSTM layers by one decision; the top output becomes the anchor of a `Links`."""
    hidden_0, cell_0 = lstm_cell(weights.lstm_0, inputs, carry.hidden_0, carry.cell_0)
    hidden_1, cell_1 = lstm_cell(weights.lstm_1, hidden_0, carry.hidden_1, carry.cell_1)
    anchors = carry.anchors + slot[:, :, tf.newaxis] * hidden_1[:, tf.newaxis, :]
    return Carry(hidden_0, cell_0, hidden_1, cell_1, anchors)


def option_log_probs(weights: Weights, hidden: tf.Tensor, current: Current) -> tf.Tensor:
    """float32 (…, width), log-probabilities of a choice's options, very low where not allowed.

    Args:
        hidden: float32 (…, units), the top output at the decision.
    """
    # Not a matrix product: its last bit would depend on how far the tables are padded.
    logits = tf.reduce_sum(tf.gather(weights.kernels, current.kind) * hidden[..., tf.newaxis, :], axis=-1)
    logits += tf.gather(weights.biases, current.kind)
    return tf.nn.log_softmax(tf.where(current.allowed, logits, -1e9))


def zero_carry(batch: int | tf.Tensor, slots: int, units: int) -> Carry:
    zeros = tf.zeros((batch, units))
    return Carry(zeros, zeros, zeros, zeros, tf.zeros((batch, slots, units)))


def initial_arrays(seed: int, units: int, initial_range: float, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """First values of all weights, each from (seed, its own name): a head is the same whenever its kind turns up.

    Args:
        widths: the number of options of each kind, in the order of the tables' rows.
    """

    def uniform(name: str, *shape: int) -> np.ndarray:
        return initial(seed, name).uniform(-initial_range, initial_range, shape).astype(np.float32)

    # At least one of each: a gather needs something to take, also in a space of nothing but links.
    num_rows, width = max(1, len(widths)), max(widths.values(), default=1)
    arrays = {
        "lstm_0": uniform("lstm_0", 2 * units + 1, 4 * units),
        "lstm_1": uniform("lstm_1", 2 * units + 1, 4 * units),
        "start": uniform("start", units),
        "nothing": uniform("nothing", units),
        "previous_anchor": uniform("previous_anchor", units, units),
        "current_anchor": uniform("current_anchor", units, units),
        "attention": uniform("attention", units),
        "embeddings": np.zeros((num_rows, width, units), np.float32),
        "kernels": np.zeros((num_rows, width, units), np.float32),
        "biases": np.zeros((num_rows, width), np.float32),
    }
    for row, (kind, num_options) in enumerate(widths.items()):
        for table in TABLES:
            shape = (num_options,) if table == "biases" else (num_options, units)
            arrays[table][row, :num_options] = uniform(f"{table}/{kind}", *shape)
    return arrays
