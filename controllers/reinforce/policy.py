"""The recurrent policy: a two-layer LSTM, one head per kind of decision, and set-selection attention for links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from automl.controllers.keyed import initial

START, EMBEDDING, ANCHORS = 0, 1, 2  # values of `Previous.mode`: what the next input of the LSTM is made from


class Carry(NamedTuple):
    """The recurrent state between two steps. `anchors` are the top-layer outputs at the child's earlier `Links`."""

    hidden_0: tf.Tensor  # float32 (batch, units)
    cell_0: tf.Tensor
    hidden_1: tf.Tensor
    cell_1: tf.Tensor
    anchors: tf.Tensor  # float32 (batch, slots, units)


class Previous(NamedTuple):
    """The answer to the previous decision."""

    mode: tf.Tensor  # int32 (batch,): START, EMBEDDING (after a choice) or ANCHORS (after links)
    kind: tf.Tensor  # int32 (batch,), row of the tables
    token: tf.Tensor  # int32 (batch,)
    chosen: tf.Tensor  # float32 (batch, slots), 1 at the linked anchors


class Current(NamedTuple):
    """The decision to answer."""

    kind: tf.Tensor  # int32 (batch,), row of the tables; 0 for links
    allowed: tf.Tensor  # bool (batch, width): options that may be drawn
    slot: tf.Tensor  # float32 (batch, slots), 1 at the slot that a `Links` fills; all 0 for a choice


class Weights(NamedTuple):
    """The policy's parameters, float32 tensors or arrays. Each kind of decision has a row in each of the three tables,
    `embeddings`, `kernels` and `biases`."""

    lstm_0: tf.Tensor  # (2 * units + 1, 4 * units): input, recurrent and bias rows; gates in the order i, f, g, o
    lstm_1: tf.Tensor
    start: tf.Tensor  # (units,), the first input
    nothing: tf.Tensor  # (units,), the input after `Links` without a link
    previous_anchor: tf.Tensor  # (units, units), W_prev
    current_anchor: tf.Tensor  # (units, units), W_curr
    attention: tf.Tensor  # (units,), v
    embeddings: tf.Tensor  # (kinds, width, units)
    kernels: tf.Tensor  # (kinds, width, units)
    biases: tf.Tensor  # (kinds, width)


TABLES = ("embeddings", "kernels", "biases")


def lstm_cell(weights: tf.Tensor, inputs: tf.Tensor, hidden: tf.Tensor, cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of an LSTM layer: the new hidden and cell state.

        i, f, g, o = split([x, h] W + b)
        c' = sigmoid(f) c + sigmoid(i) tanh(g)        h' = sigmoid(o) tanh(c')

    Args:
        weights: float32 (inputs + units + 1, 4 * units): W, with b as its last row.
        inputs: float32 (batch, inputs), x.
        hidden, cell: float32 (batch, units), h and c.

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
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
    """The embeddings of options, float32 (…, units).

    Args:
        kind, token: int32 (…): row of the tables, and index of the option.
    """
    width, units = weights.embeddings.shape[1:]
    return tf.gather(tf.reshape(weights.embeddings, (-1, units)), kind * width + token)


def next_input(
    weights: Weights, anchors: tf.Tensor, mode: tf.Tensor, embedded: tf.Tensor, chosen: tf.Tensor
) -> tf.Tensor:
    """The next input of the LSTM, float32 (batch, units): the start vector, the embedding of the previous option or the
    mean of the linked anchors.

    Args:
        anchors: float32 (batch, slots, units).
        mode: int32 (batch,), as in `Previous`.
        embedded: float32 (batch, units), the embedding of the previous option; unused in other modes.
        chosen: float32 (batch, slots), 1 at the linked anchors.
    """
    total = tf.matmul(chosen[:, tf.newaxis, :], anchors)[:, 0, :]
    count = tf.reduce_sum(chosen, axis=1, keepdims=True)
    mean = tf.where(count > 0, total / tf.maximum(count, 1.0), weights.nothing)
    mode = mode[:, tf.newaxis]
    return tf.where(mode == EMBEDDING, embedded, tf.where(mode == ANCHORS, mean, weights.start))


def advance(weights: Weights, carry: Carry, inputs: tf.Tensor, slot: tf.Tensor) -> Carry:
    """Runs both LSTM layers for one decision; at a `Links` the top output becomes an anchor.

    Args:
        inputs: float32 (batch, units).
        slot: float32 (batch, slots), as in `Current`.
    """
    hidden_0, cell_0 = lstm_cell(weights.lstm_0, inputs, carry.hidden_0, carry.cell_0)
    hidden_1, cell_1 = lstm_cell(weights.lstm_1, hidden_0, carry.hidden_1, carry.cell_1)
    anchors = carry.anchors + slot[:, :, tf.newaxis] * hidden_1[:, tf.newaxis, :]
    return Carry(hidden_0, cell_0, hidden_1, cell_1, anchors)


def option_log_probs(weights: Weights, hidden: tf.Tensor, current: Current) -> tf.Tensor:
    """Log-probabilities of a choice's options in nats, float32 (…, width); about -1e9 where not allowed.

    Args:
        hidden: float32 (…, units), the top output at the decision.
    """
    # Not a matrix product: its last bit would depend on the padding of the tables.
    logits = tf.reduce_sum(tf.gather(weights.kernels, current.kind) * hidden[..., tf.newaxis, :], axis=-1)
    logits += tf.gather(weights.biases, current.kind)
    return tf.nn.log_softmax(tf.where(current.allowed, logits, -1e9))


def zero_carry(batch: int | tf.Tensor, slots: int, units: int) -> Carry:
    """The recurrent state before the first step."""
    zeros = tf.zeros((batch, units))
    return Carry(zeros, zeros, zeros, zeros, tf.zeros((batch, slots, units)))


def initial_arrays(seed: int, units: int, initial_range: float, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Initial values of all weights, float32, uniform in [-initial_range, initial_range].

    Each depends only on the seed and its name, so a head's values do not depend on when its kind first appears.

    Args:
        widths: the number of options of each kind, in the order of the tables' rows.
    """

    def uniform(name: str, *shape: int) -> np.ndarray:
        return initial(seed, name).uniform(-initial_range, initial_range, shape).astype(np.float32)

    # At least one row and one column: gather fails on an empty table, and a space with only `Links` has no kinds.
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
