"""The compiled update of the policy on a batch of whole children."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from automl.controllers.reinforce.encoding import Sequences
from automl.controllers.reinforce.losses import adam, imitation_loss
from automl.controllers.reinforce.policy import (
    Carry,
    Weights,
    advance,
    attention_logits,
    embed,
    next_input,
    option_log_probs,
    zero_carry,
)
from automl.controllers.reinforce.presets import Settings


class LogProbs(NamedTuple):
    """The policy's output for given children."""

    log_probs: tf.Tensor  # float32 (batch, steps), natural log-probability of each answer; 0 where forced or padded
    entropy: tf.Tensor  # float32 scalar, mean over the free tokens of the drawn children, in nats
    probabilities: tf.Tensor  # float32 (kinds, width), mean over the free choices of each kind


def children_log_probs(weights: Weights, sequences: Sequences, drawn: tf.Tensor | None = None) -> LogProbs:
    """Log-probabilities of whole children, with gradients through every step and into every anchor.

    Args:
        drawn: number of leading children that were drawn from the policy; None for all. The other children are
            imitated and do not count in the entropy.
    """
    previous, current = sequences.previous, sequences.current
    hidden, anchors = unroll(weights, sequences)
    options = option_log_probs(weights, hidden, current)
    log_probs = tf.gather(options, sequences.token, batch_dims=2) * sequences.free_choice
    probabilities = tf.exp(options) * sequences.free_choice[:, :, tf.newaxis]
    entropy = -tf.reduce_sum((probabilities * tf.maximum(options, -1e4))[:, :drawn])
    if previous.chosen.shape[2]:
        # The anchor of a `Links` is the output at its own step, so one call computes the logits of all links.
        logits = attention_logits(anchors, anchors, weights.previous_anchor, weights.current_anchor, weights.attention)
        links = tf.einsum("tbi,bij->tbj", current.slot, logits)
        # log sigmoid(l) where the bit is 1, log sigmoid(-l) where it is 0
        bits = -tf.nn.softplus((1.0 - 2.0 * sequences.bits) * links) * sequences.free_bits
        log_probs += tf.reduce_sum(bits, axis=2)
        link_entropy = (tf.nn.softplus(links) - links * tf.sigmoid(links)) * sequences.free_bits
        entropy += tf.reduce_sum(link_entropy[:, :drawn])
    free_tokens = tf.reduce_sum(sequences.free_choice[:, :drawn]) + tf.reduce_sum(sequences.free_bits[:, :drawn])
    flat_kinds, width = tf.reshape(current.kind, (-1,)), weights.biases.shape[1]
    flat_probabilities = tf.reshape(tf.stop_gradient(probabilities), (-1, width))
    totals = tf.math.unsorted_segment_sum(flat_probabilities, flat_kinds, weights.biases.shape[0])
    return LogProbs(
        tf.transpose(log_probs),
        entropy / tf.maximum(free_tokens, 1.0),
        tf.math.divide_no_nan(totals, tf.reduce_sum(totals, axis=1, keepdims=True)),
    )


def unroll(weights: Weights, sequences: Sequences) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs the LSTM over given children.

    The loop contains only the recurrence. The heads run on all outputs afterwards, in one call, which is several times
    as fast as running them in every step.

    Returns:
        The top layer's outputs, float32 (steps, batch, units), and its outputs at `Links`, (batch, slots, units).
    """
    previous, slot = sequences.previous, sequences.current.slot
    embedded = embed(weights, previous.kind, previous.token)
    steps, batch = tf.shape(slot)[0], tf.shape(slot)[1]
    outputs = tf.TensorArray(tf.float32, size=steps, element_shape=(None, weights.start.shape[0]))

    def body(t: tf.Tensor, carry: Carry, outputs: tf.TensorArray) -> tuple[tf.Tensor, Carry, tf.TensorArray]:
        inputs = next_input(weights, carry.anchors, previous.mode[t], embedded[t], previous.chosen[t])
        carry = advance(weights, carry, inputs, slot[t])
        return t + 1, carry, outputs.write(t, carry.hidden_1)

    carry = zero_carry(batch, slot.shape[2], weights.start.shape[0])
    _, carry, outputs = tf.while_loop(lambda t, *_: t < steps, body, (0, carry, outputs), maximum_iterations=steps)
    return outputs.stack(), carry.anchors


Surrogate = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class TrainState(NamedTuple):
    """Everything that an update changes, as tensors or arrays."""

    weights: Weights
    first: Weights  # Adam's first moments
    second: Weights  # Adam's second moments
    steps: tf.Tensor  # float32 scalar, number of Adam steps taken


Update = Callable[..., tuple[TrainState, tf.Tensor, tf.Tensor, tf.Tensor]]


class Updater:
    """Runs the compiled update, a pure function of the training state.

    There are no TensorFlow variables: drawing and storing would read all of them after each update, which takes
    milliseconds.

    Args:
        state: the initial training state, as arrays.
        surrogate: the loss of the drawn children. It takes the log-probabilities of their answers now and when they
            were drawn, (batch, steps), and their advantages, (batch,).
        passes: Adam steps per call.
        compiled: whether XLA compiles the update.
    """

    def __init__(
        self, state: TrainState, settings: Settings, surrogate: Surrogate, *, passes: int, compiled: bool
    ) -> None:
        self._state: TrainState = tf.nest.map_structure(tf.constant, state)
        self._settings = settings
        self._surrogate = surrogate
        self._passes = passes
        self._update: Update | None = None
        self._compiled = compiled

    @property
    def weights(self) -> Weights:
        """The current weights, as arrays."""
        return Weights(*(tensor.numpy() for tensor in self._state.weights))

    @property
    def state(self) -> TrainState:
        """The current training state, as arrays."""
        arrays: TrainState = tf.nest.map_structure(lambda tensor: tensor.numpy(), self._state)
        return arrays

    def __call__(
        self, sequences: Sequences, advantages: Sequence[float], num_imitated: int
    ) -> tuple[float, float, np.ndarray]:
        """Learns from the drawn children, which come first, by the surrogate loss, and from the last `num_imitated`
        children by imitation.

        Args:
            advantages: one for each drawn child.

        Returns:
            The loss, the mean entropy in nats per free token, and the mean probabilities (kinds, width). The last pass
            computes them before its Adam step.
        """
        if self._update is None:
            # One trace serves all numbers of steps and children. A trace for the first batch's shape would be another
            # graph, and a resumed search has another first batch.
            shapes = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), self._state)
            children = tf.nest.map_structure(
                lambda part: tf.TensorSpec((None, None, *part.shape[2:]), part.dtype), sequences
            )
            self._update = _graph(self._surrogate, self._settings, shapes, children, self._compiled)
        tensors = tf.nest.map_structure(tf.constant, sequences)
        for _ in range(self._passes):
            self._state, loss, entropy, probabilities = self._update(
                self._state, tensors, tf.constant(advantages, tf.float32), tf.constant(num_imitated)
            )
        return float(loss), float(entropy), probabilities.numpy()


@functools.lru_cache(maxsize=16)  # tracing takes seconds; controllers of equal shapes share a graph
def _graph(surrogate: Surrogate, settings: Settings, shapes: TrainState, children: Sequences, compiled: bool) -> Update:
    """The update as a graph.

    Args:
        shapes, children: `tf.TensorSpec` in place of tensors.
    """

    def update(
        state: TrainState, sequences: Sequences, advantages: tf.Tensor, num_imitated: tf.Tensor
    ) -> tuple[TrainState, tf.Tensor, tf.Tensor, tf.Tensor]:
        weights = state.weights
        with tf.GradientTape() as tape:
            tape.watch(weights)
            drawn = tf.shape(advantages)[0]
            policy = children_log_probs(weights, sequences, drawn)
            old = tf.transpose(sequences.old_log_probs)[:drawn]
            loss = surrogate(policy.log_probs[:drawn], old, advantages) - settings.entropy * policy.entropy
            if settings.imitate:
                imitated = imitation_loss(policy.log_probs[drawn:])
                loss += settings.imitation * tf.where(num_imitated > 0, imitated, 0.0)
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        steps = state.steps + 1.0
        new_weights, firsts, seconds = [], [], []
        for weight, gradient, first, second in zip(weights, gradients, state.first, state.second, strict=True):
            dense = tf.convert_to_tensor(gradient)
            change, first, second = adam(dense, first, second, steps, settings.learning_rate)
            new_weights.append(weight + change)
            firsts.append(first)
            seconds.append(second)
        state = TrainState(Weights(*new_weights), Weights(*firsts), Weights(*seconds), steps)
        return state, loss, policy.entropy, policy.probabilities

    scalar, vector = tf.TensorSpec((), tf.int32), tf.TensorSpec((None,), tf.float32)
    graph: Update = tf.function(update, (shapes, children, vector, scalar), autograph=False, jit_compile=compiled)
    return graph
