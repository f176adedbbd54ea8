"""One compiled update of the policy over whole children."""

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
    """What the policy says of given children."""

    log_probs: tf.Tensor  # float32 (batch, steps), of the answers given; 0 where forced or padded
    entropy: tf.Tensor  # float32 scalar, mean nats per free token of the children that were drawn
    probabilities: tf.Tensor  # float32 (kinds, width), mean over the free choices of each kind


def children_log_probs(weights: Weights, sequences: Sequences, drawn: tf.Tensor | None = None) -> LogProbs:
    """Log-probabilities of whole children, with gradients through every step and into every anchor.

    Args:
        drawn: how many of them, from the first, were drawn from the policy; None for all. The others are imitated and
            do not count in the entropy.
    """
    previous, current = sequences.previous, sequences.current
    hidden, anchors = unroll(weights, sequences)
    options = option_log_probs(weights, hidden, current)
    option = tf.gather(options, sequences.token, batch_dims=2) * sequences.free_choice
    chances = tf.exp(options) * sequences.free_choice[:, :, tf.newaxis]
    entropy = -tf.reduce_sum((chances * tf.maximum(options, -1e4))[:, :drawn])
    if previous.chosen.shape[2]:
        # The anchor of a `Links` is the output at its own step, so all links are weighed at once, slot by slot.
        logits = attention_logits(anchors, anchors, weights.previous_anchor, weights.current_anchor, weights.attention)
        links = tf.einsum("tbi,bij->tbj", current.slot, logits)
        # log sigmoid(l) where the bit is 1, log sigmoid(-l) where it is 0
        bits = -tf.nn.softplus((1.0 - 2.0 * sequences.bits) * links) * sequences.free_bits
        option += tf.reduce_sum(bits, axis=2)
        of_links = (tf.nn.softplus(links) - links * tf.sigmoid(links)) * sequences.free_bits
        entropy += tf.reduce_sum(of_links[:, :drawn])
    free_tokens = tf.reduce_sum(sequences.free_choice[:, :drawn]) + tf.reduce_sum(sequences.free_bits[:, :drawn])
    flat_kinds, width = tf.reshape(current.kind, (-1,)), weights.biases.shape[1]
    flat_chances = tf.reshape(tf.stop_gradient(chances), (-1, width))
    totals = tf.math.unsorted_segment_sum(flat_chances, flat_kinds, weights.biases.shape[0])
    return LogProbs(
        tf.transpose(option),
        entropy / tf.maximum(free_tokens, 1.0),
        tf.math.divide_no_nan(totals, tf.reduce_sum(totals, axis=1, keepdims=True)),
    )


def unroll(weights: Weights, sequences: Sequences) -> tuple[tf.Tensor, tf.Tensor]:
    """The policy's top outputs over given children: (steps, batch, units), and those at `Links`, (batch, slots, units).

    Only what a step needs of the one before is in the loop; the heads read all outputs at once afterwards, which is
    several times as fast as both together, step by step.
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


class Learned(NamedTuple):
    """All that an update changes, as tensors or arrays."""

    weights: Weights
    first: Weights  # Adam's moments
    second: Weights
    steps: tf.Tensor  # float32 scalar, those that Adam took


Update = Callable[..., tuple[Learned, tf.Tensor, tf.Tensor, tf.Tensor]]


class Updater:
    """The compiled update, a function of what was learned: reading as many TensorFlow variables afterwards, to draw and
    to store, would take milliseconds.

    Args:
        learned: where learning begins, as arrays.
        surrogate: the loss of drawn children: log-probabilities of answers now and when they were drawn, (batch,
            steps), and advantages (batch,).
        passes: steps of Adam that one call takes.
        compiled: by XLA.
    """

    def __init__(
        self, learned: Learned, settings: Settings, surrogate: Surrogate, *, passes: int, compiled: bool
    ) -> None:
        self._learned: Learned = tf.nest.map_structure(tf.constant, learned)
        self._settings = settings
        self._surrogate = surrogate
        self._passes = passes
        self._update: Update | None = None
        self._compiled = compiled

    @property
    def weights(self) -> Weights:
        """Arrays."""
        return Weights(*(tensor.numpy() for tensor in self._learned.weights))

    @property
    def learned(self) -> Learned:
        """Arrays."""
        arrays: Learned = tf.nest.map_structure(lambda tensor: tensor.numpy(), self._learned)
        return arrays

    def __call__(
        self, sequences: Sequences, advantages: Sequence[float], num_imitated: int
    ) -> tuple[float, float, np.ndarray]:
        """Learns from the first children by the surrogate, and from the last `num_imitated` by imitation.

        Returns:
            of the last pass: the loss, the mean entropy in nats per free token, and the mean probabilities (kinds,
            width), all as they were before it.
        """
        if self._update is None:
            # One trace for every number of steps and children: the graph that a first batch's shape would give is a
            # different one, and a search that was resumed has another first batch.
            shapes = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), self._learned)
            children = tf.nest.map_structure(
                lambda part: tf.TensorSpec((None, None, *part.shape[2:]), part.dtype), sequences
            )
            self._update = _graph(self._surrogate, self._settings, shapes, children, self._compiled)
        tensors = tf.nest.map_structure(tf.constant, sequences)
        for _ in range(self._passes):
            self._learned, loss, entropy, probabilities = self._update(
                self._learned, tensors, tf.constant(advantages, tf.float32), tf.constant(num_imitated)
            )
        return float(loss), float(entropy), probabilities.numpy()


@functools.lru_cache(maxsize=16)  # tracing takes seconds; controllers of equal shapes share a graph
def _graph(surrogate: Surrogate, settings: Settings, shapes: Learned, children: Sequences, compiled: bool) -> Update:
    """The update as a graph.

    Args:
        shapes, children: `tf.TensorSpec` in place of tensors.
    """

    def update(
        learned: Learned, sequences: Sequences, advantages: tf.Tensor, num_imitated: tf.Tensor
    ) -> tuple[Learned, tf.Tensor, tf.Tensor, tf.Tensor]:
        weights = learned.weights
        with tf.GradientTape() as tape:
            tape.watch(weights)
            drawn = tf.shape(advantages)[0]
            found = children_log_probs(weights, sequences, drawn)
            old = tf.transpose(sequences.old_log_probs)[:drawn]
            loss = surrogate(found.log_probs[:drawn], old, advantages) - settings.entropy * found.entropy
            if settings.imitate:
                imitated = imitation_loss(found.log_probs[drawn:])
                loss += settings.imitation * tf.where(num_imitated > 0, imitated, 0.0)
        gradients = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        steps = learned.steps + 1.0
        moved, firsts, seconds = [], [], []
        for weight, gradient, first, second in zip(weights, gradients, learned.first, learned.second, strict=True):
            dense = tf.convert_to_tensor(gradient)
            change, first, second = adam(dense, first, second, steps, settings.learning_rate)
            moved.append(weight + change)
            firsts.append(first)
            seconds.append(second)
        learned = Learned(Weights(*moved), Weights(*firsts), Weights(*seconds), steps)
        return learned, loss, found.entropy, found.probabilities

    scalar, vector = tf.TensorSpec((), tf.int32), tf.TensorSpec((None,), tf.float32)
    graph: Update = tf.function(update, (shapes, children, vector, scalar), autograph=False, jit_compile=compiled)
    return graph
