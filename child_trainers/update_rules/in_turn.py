"""A population of update rules whose members take turns, which suits a processor."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from automl.child_trainers.update_rules.flat_networks import FlatNetwork, rule_counters, unflatten
from automl.child_trainers.update_rules.population import Member
from automl.search_spaces.update_rule.program import LENGTH, update_of
from automl.search_spaces.update_rule.semantics import (
    AVERAGES,
    StepContext,
    averaged,
    normal_of,
    uniform_of,
)


class InTurn:
    """A `Population` whose places take turns, since the step of one network keeps a processor busy.

    Two functions are compiled: an epoch and a validation, of any number of places. Each is traced once for all rules,
    learning rates and populations.

    Args:
        places: the largest number of networks at a time.

    Attributes:
        places: as given.
        side_by_side, traces: see `Population`.
    """

    side_by_side = False

    def __init__(self, network: FlatNetwork, places: int) -> None:
        self.places = places
        self._network = network
        size = sum(math.prod(shape) for shape in network.shapes.values())
        self._weights = tf.Variable(tf.zeros((places, size)))
        self._averages = tf.Variable(tf.zeros((places, len(AVERAGES), size)))
        self._state = tf.Variable(tf.zeros((places, network.initial_state().size)))
        self._members: dict[int, Member] = {}
        with tf.device("CPU"):  # read by another thread
            self._steps_done = tf.Variable(0, dtype=tf.int64)
        self._words = rule_counters(network.shapes)
        self.traces = 0

    def steps_done(self) -> int:
        return int(self._steps_done.numpy())

    def compile(self) -> None:
        _ = self._epoch, self._values

    def begin(self, place: int, member: Member) -> None:
        self._members[place] = member
        self._weights[place].assign(self._network.initial(member.seed))
        self._averages[place].assign(tf.zeros(self._averages.shape[1:]))
        self._state[place].assign(self._network.initial_state())

    def train_epoch(self, places: Sequence[int], epochs: Sequence[int]) -> list[float]:
        if not places:
            return []
        members = [self._members[place] for place in places]
        losses = self._epoch(
            tf.constant(places, tf.int32),
            tf.constant(np.stack([member.program for member in members])),
            tf.constant([member.rate for member in members], tf.float32),
            tf.constant([member.seed % 2**31 for member in members], tf.int32),
            tf.constant([member.seed % 2**32 for member in members], tf.uint32),
            tf.constant([member.steps for member in members], tf.float32),
            tf.constant(epochs, tf.int32),
        )
        return [float(loss) for loss in losses.numpy()]

    def validate(self, places: Sequence[int]) -> list[float]:
        return [float(value) for value in self._values(tf.constant(places, tf.int32)).numpy()] if places else []

    def weights(self, place: int) -> dict[str, np.ndarray]:
        parts = unflatten(self._weights[place], self._network.shapes)
        if self._network.keeps_state:
            parts |= unflatten(self._state[place], self._network.state_shapes)
        return {name: part.numpy() for name, part in parts.items()}

    @functools.cached_property
    def _epoch(self) -> tf.types.experimental.ConcreteFunction:
        self.traces += 1
        several = functools.partial(tf.TensorSpec, (None,))
        return tf.function(self._train, autograph=False).get_concrete_function(
            several(tf.int32),
            tf.TensorSpec((None, LENGTH), tf.int32),
            several(tf.float32),
            several(tf.int32),
            several(tf.uint32),
            several(tf.float32),
            several(tf.int32),
        )

    @functools.cached_property
    def _values(self) -> tf.types.experimental.ConcreteFunction:
        self.traces += 1

        def values(places: tf.Tensor) -> tf.Tensor:
            def value(place: tf.Tensor) -> tf.Tensor:
                return self._network.validate(self._weights[place], self._state[place])

            return tf.map_fn(value, places, fn_output_signature=tf.float32, parallel_iterations=1)

        return tf.function(values, autograph=False).get_concrete_function(tf.TensorSpec((None,), tf.int32))

    def _train(
        self,
        places: tf.Tensor,
        programs: tf.Tensor,
        rates: tf.Tensor,
        order_seeds: tf.Tensor,
        seeds: tf.Tensor,
        decay_steps: tf.Tensor,
        epochs: tf.Tensor,
    ) -> tf.Tensor:
        """The mean loss of each place's steps, float32 (places,)."""
        network, steps = self._network, self._network.steps_per_epoch
        names = tuple(AVERAGES)

        def train(member: tuple[tf.Tensor, ...]) -> tf.Tensor:
            place, program, rate, order_seed, seed, total_steps, epoch = member
            plan = network.plan(order_seed, epoch)

            def body(
                step: tf.Tensor, total: tf.Tensor, weights: tf.Tensor, averages: tf.Tensor, state: tf.Tensor
            ) -> tuple[tf.Tensor, ...]:
                loss, gradient, state = network.gradient(weights, state, plan, step)
                number = epoch * steps + step
                averages = tf.stack([averaged(name, averages[index], gradient) for index, name in enumerate(names)])
                context = StepContext(
                    gradient,
                    weights,
                    {name: averages[index] for index, name in enumerate(names)},
                    number,
                    drawn=lambda place: uniform_of(self._words[0], seed, number, place),
                    noise=lambda: normal_of(self._words[1], self._words[2], seed, number),
                    decay_steps=total_steps,
                )
                weights -= rate * update_of(program, context)
                with tf.control_dependencies([weights]):
                    self._steps_done.assign_add(1)
                return step + 1, total + loss, weights, averages, state

            start = (
                tf.constant(0),
                tf.constant(0.0),
                self._weights[place],
                self._averages[place],
                network.epoch_state(self._state[place]),
            )
            _, total, weights, averages, state = tf.while_loop(
                lambda step, total, *_: tf.logical_and(step < steps, tf.math.is_finite(total)), body, start
            )
            for variable, value in ((self._weights, weights), (self._averages, averages), (self._state, state)):
                variable.scatter_update(tf.IndexedSlices(value[tf.newaxis], place[tf.newaxis]))
            return total / tf.cast(steps, tf.float32)

        members = (places, programs, rates, order_seeds, seeds, decay_steps, epochs)
        return tf.map_fn(train, members, fn_output_signature=tf.float32, parallel_iterations=1)
