"""One compiled update of the policy over whole children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from controllers.reinforce.heads import AnchorSlots, Heads
from controllers.reinforce.losses import adam, imitation_loss, reinforce_loss
from controllers.reinforce.policy import (
    ANCHORS,
    EMBEDDING,
    START,
    Current,
    Previous,
    Variables,
    policy_step,
    zero_carry,
)
from controllers.reinforce.presets import Settings
from search_spaces.decisions import Choice
from search_spaces.walk import Walk


class Sequences(NamedTuple):
    """Children as arrays, one step per decision, padded to the longest: (steps, batch, …)."""

    previous: Previous
    current: Current
    token: np.ndarray  # int32 (steps, batch), the option taken
    free_choice: np.ndarray  # float32 (steps, batch), 1 where a choice was drawn and not forced
    bits: np.ndarray  # float32 (steps, batch, slots), the links drawn
    free_bits: np.ndarray  # float32 (steps, batch, slots), 1 where a bit was drawn and not forced


def encode(walks: Sequence[Walk], heads: Heads) -> Sequences:
    """Finished walks as arrays for `update`."""
    steps = max(len(walk.decisions) for walk in walks)
    shape = (steps, len(walks))
    sequences = Sequences(
        Previous(
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            np.zeros((*shape, heads.slots), np.float32),
        ),
        Current(
            np.zeros(shape, np.int32),
            np.ones((*shape, heads.width), bool),
            np.zeros((*shape, heads.slots), np.float32),
        ),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.zeros((*shape, heads.slots), np.float32),
        np.zeros((*shape, heads.slots), np.float32),
    )
    for column, walk in enumerate(walks):
        _encode_child(sequences, column, walk, heads)
    return sequences


def _encode_child(sequences: Sequences, column: int, walk: Walk, heads: Heads) -> None:
    previous, current, taken, free_choice, bits, free_bits = sequences
    anchors = AnchorSlots()
    previous.mode[0, column] = START
    for step, (decision, answer) in enumerate(zip(walk.decisions, walk.answers.values(), strict=True)):
        at, following = (step, column), (step + 1, column)
        last = step + 1 == len(walk.decisions)
        if isinstance(decision, Choice):
            row = heads.rows[decision.kind]
            current.kind[at] = row
            current.allowed[at] = False
            current.allowed[at][: len(decision.options)] = decision.allowed or True
            taken[at] = answer[0]
            free_choice[at] = decision.forced[0] is None
            if not last:
                previous.mode[following] = EMBEDDING
                previous.kind[following] = row
                previous.token[following] = answer[0]
        else:
            earlier = list(anchors.earlier(decision.kind))
            current.slot[at][anchors.fill(decision.kind)] = 1.0
            bits[at][earlier] = answer
            free_bits[at][earlier] = [bit is None for bit in decision.forced]
            if not last:
                previous.mode[following] = ANCHORS
                previous.chosen[following][earlier] = answer


class LogProbs(NamedTuple):
    """What the policy says of given children."""

    log_probs: tf.Tensor  # float32 (batch, steps), of the answers given; 0 where forced or padded
    entropy: tf.Tensor  # float32 scalar, mean nats per free token
    probabilities: tf.Tensor  # float32 (kinds, width), mean over the free choices of each kind


def children_log_probs(variables: Variables, sequences: Sequences) -> LogProbs:
    """Log-probabilities of whole children, with gradients through every step and into every anchor."""
    steps, batch = tf.shape(sequences.token)[0], tf.shape(sequences.token)[1]
    kinds = variables.biases.shape[0]
    slots, units = sequences.bits.shape[2], variables.start.shape[0]
    carry = zero_carry(batch, slots, units)
    log_probs = tf.TensorArray(tf.float32, size=steps, element_shape=(None,))
    entropies = tf.TensorArray(tf.float32, size=steps, element_shape=())
    probabilities = tf.zeros_like(variables.biases)

    def body(t: tf.Tensor, carry: tf.Tensor, log_probs: tf.Tensor, entropies: tf.Tensor, probabilities: tf.Tensor):  # type: ignore[no-untyped-def]
        previous = Previous(*(part[t] for part in sequences.previous))
        current = Current(*(part[t] for part in sequences.current))
        options, links, carry = policy_step(variables, carry, previous, current)
        free, bits, free_bits = sequences.free_choice[t], sequences.bits[t], sequences.free_bits[t]
        option = tf.gather(options, sequences.token[t], batch_dims=1) * free
        # log sigmoid(l) where the bit is 1, log sigmoid(-l) where it is 0
        bit = -tf.nn.softplus((1.0 - 2.0 * bits) * links) * free_bits
        log_probs = log_probs.write(t, option + tf.reduce_sum(bit, axis=1))
        chances = tf.exp(options) * free[:, tf.newaxis]
        option_entropy = -tf.reduce_sum(chances * tf.maximum(options, -1e4))
        bit_entropy = tf.reduce_sum((tf.nn.softplus(links) - links * tf.sigmoid(links)) * free_bits)
        entropies = entropies.write(t, option_entropy + bit_entropy)
        probabilities += tf.stop_gradient(tf.math.unsorted_segment_sum(chances, current.kind, kinds))
        return t + 1, carry, log_probs, entropies, probabilities

    _, _, log_probs, entropies, probabilities = tf.while_loop(
        lambda t, *_: t < steps, body, (0, carry, log_probs, entropies, probabilities), maximum_iterations=steps
    )
    free_tokens = tf.reduce_sum(sequences.free_choice) + tf.reduce_sum(sequences.free_bits)
    totals = tf.reduce_sum(probabilities, axis=1, keepdims=True)
    return LogProbs(
        tf.transpose(log_probs.stack()),
        tf.reduce_sum(entropies.stack()) / tf.maximum(free_tokens, 1.0),
        tf.math.divide_no_nan(probabilities, totals),
    )


class Updater:
    """The compiled update; Adam's moments live beside the variables."""

    def __init__(self, variables: Variables, settings: Settings) -> None:
        self.first = Variables(*(tf.Variable(tf.zeros_like(variable)) for variable in variables))
        self.second = Variables(*(tf.Variable(tf.zeros_like(variable)) for variable in variables))
        self.steps = tf.Variable(0.0)
        self._variables = variables
        self._settings = settings
        self._update = tf.function(self._graph, reduce_retracing=True)

    def __call__(
        self, sequences: Sequences, advantages: Sequence[float], num_imitated: int
    ) -> tuple[float, float, np.ndarray]:
        """One step on the first children by REINFORCE, and on the last `num_imitated` by imitation.

        Returns:
            the loss, the mean entropy in nats per free token, and the mean probabilities (kinds, width).
        """
        tensors = tf.nest.map_structure(tf.constant, sequences)
        loss, entropy, probabilities = self._update(
            tensors, tf.constant(advantages, tf.float32), tf.constant(num_imitated)
        )
        return float(loss), float(entropy), probabilities.numpy()

    def _graph(
        self, sequences: Sequences, advantages: tf.Tensor, num_imitated: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        settings = self._settings
        with tf.GradientTape() as tape:
            found = children_log_probs(self._variables, sequences)
            drawn = tf.shape(advantages)[0]
            loss = reinforce_loss(found.log_probs[:drawn], advantages) - settings.entropy * found.entropy
            if settings.imitate:
                imitated = imitation_loss(found.log_probs[drawn:])
                loss += settings.imitation * tf.where(num_imitated > 0, imitated, 0.0)
        gradients = tape.gradient(loss, self._variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.steps.assign_add(1.0)
        for variable, gradient, first, second in zip(self._variables, gradients, self.first, self.second, strict=True):
            dense = tf.convert_to_tensor(gradient)
            change, new_first, new_second = adam(dense, first, second, self.steps, settings.learning_rate)
            variable.assign_add(change)
            first.assign(new_first)
            second.assign(new_second)
        return loss, found.entropy, found.probabilities
