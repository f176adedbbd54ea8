"""A population of update rules whose members make their steps at once, which suits a GPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from automl.child_trainers.update_rules.flat_networks import rule_counters, unflatten
from automl.child_trainers.update_rules.grouped_networks import GroupedNetwork
from automl.child_trainers.update_rules.population import Member
from automl.search_spaces.update_rule.program import LENGTH, updates_of
from automl.search_spaces.update_rule.semantics import AVERAGES, StepContext, averaged, normal_of, uniform_of

NARROWEST = 16  # places; a step of fewer members takes as long on a GPU


class SideBySide:
    """A `Population` whose members are one grouped network.

    A step of all members is one pass of the grouped network and one evaluation of all rules. A member that has diverged
    is masked for the rest of its epoch. The functions are compiled for a few widths: all places, and a quarter, a
    sixteenth of them and so on. An epoch of fewer members uses the narrowest that fits.

    Args:
        places: the largest number of networks at a time.
        xla: whether XLA compiles the steps of an epoch.

    Attributes:
        places: as given.
        side_by_side, traces: see `Population`.
    """

    side_by_side = True

    def __init__(self, network: GroupedNetwork, places: int, *, xla: bool = False) -> None:
        self.places = places
        self.traces = 0
        self._network = network
        self._single = network.single
        self._xla = xla
        self._initial_state = self._single.initial_state()
        size = sum(math.prod(shape) for shape in self._single.shapes.values())
        self._weights = tf.Variable(tf.zeros((places, size), network.dtype))
        self._averages = tf.Variable(tf.zeros((len(AVERAGES), places, size), network.dtype))
        self._states = tf.Variable(tf.zeros((places, self._initial_state.size), network.dtype))
        self._members: dict[int, Member] = {}
        self._words = rule_counters(self._single.shapes)
        self._compiled_epoch = functools.cache(self._trace_epoch)
        self._compiled_values = functools.cache(self._trace_values)
        with tf.device("CPU"):  # read by another thread
            self._steps_done = tf.Variable(0, dtype=tf.int64)

    def steps_done(self) -> int:
        return int(self._steps_done.numpy())

    def compile(self) -> None:
        self._compiled_epoch(self.places)
        self._compiled_values(self.places)

    def begin(self, place: int, member: Member) -> None:
        self._members[place] = member
        self._weights[place].assign(tf.cast(self._single.initial(member.seed), self._network.dtype))
        self._averages[:, place].assign(tf.zeros(self._averages[:, place].shape, self._network.dtype))
        self._states[place].assign(tf.cast(self._initial_state, self._network.dtype))

    def train_epoch(self, places: Sequence[int], epochs: Sequence[int]) -> list[float]:
        if not places:
            return []
        width = self._width(len(places))
        members = [self._members[place] for place in places]
        losses = self._compiled_epoch(width)(
            tf.constant(places, tf.int32),
            tf.constant(_padded([member.program for member in members], width, np.int32)),
            tf.constant(_padded([member.rate for member in members], width, np.float32)),
            tf.constant(_padded([member.seed % 2**32 for member in members], width, np.uint32)),
            tf.constant(_padded([member.steps for member in members], width, np.float32)),
            tf.constant(_padded(epochs, width, np.int32)),
        )
        self._steps_done.assign_add(self._single.steps_per_epoch * len(places))
        return [float(loss) for loss in losses.numpy()]

    def validate(self, places: Sequence[int]) -> list[float]:
        if not places:
            return []
        values = self._compiled_values(self._width(len(places)))(tf.constant(places, tf.int32))
        return [float(value) for value in values.numpy()]

    def weights(self, place: int) -> dict[str, np.ndarray]:
        parts = unflatten(tf.cast(self._weights[place], tf.float32), self._single.shapes)
        if self._single.keeps_state:
            parts |= unflatten(tf.cast(self._states[place], tf.float32), self._single.state_shapes)
        return {name: part.numpy() for name, part in parts.items()}

    def _width(self, count: int) -> int:
        """The narrowest compiled width for a number of members."""
        width = self.places
        while width // 4 >= max(count, NARROWEST):
            width //= 4
        return width

    def _trace_epoch(self, width: int) -> tf.types.experimental.ConcreteFunction:
        self.traces += 1
        steps = tf.function(self._steps, autograph=False, jit_compile=self._xla)

        def epoch(
            places: tf.Tensor,
            programs: tf.Tensor,
            rates: tf.Tensor,
            seeds: tf.Tensor,
            decay_steps: tf.Tensor,
            epochs: tf.Tensor,
        ) -> tf.Tensor:
            count = tf.shape(places)[0]
            rows = _rows(places, width)
            weights, states = tf.gather(self._weights, rows), tf.gather(self._states, rows)
            averages = tf.gather(self._averages, rows, axis=1)
            # Drawn outside XLA, which has other random numbers.
            plans = self._network.plans(tf.cast(seeds % 2**31, tf.int32), epochs)
            masked = tf.range(width) < count
            losses, weights, averages, states = steps(
                weights, averages, states, programs, rates, seeds, decay_steps, epochs, plans, masked
            )
            for variable, value in ((self._weights, weights), (self._states, states)):
                variable.scatter_update(tf.IndexedSlices(value[:count], places))
            for index in range(len(AVERAGES)):
                pairs = tf.stack([tf.fill([count], index), places], axis=1)
                self._averages.scatter_nd_update(pairs, averages[index, :count])
            return losses[:count]

        several = functools.partial(tf.TensorSpec, (width,))
        return tf.function(epoch, autograph=False).get_concrete_function(
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((width, LENGTH), tf.int32),
            several(tf.float32),
            several(tf.uint32),
            several(tf.float32),
            several(tf.int32),
        )

    def _trace_values(self, width: int) -> tf.types.experimental.ConcreteFunction:
        self.traces += 1
        validate = tf.function(self._network.validate, autograph=False, jit_compile=self._xla)

        def values(places: tf.Tensor) -> tf.Tensor:
            rows = _rows(places, width)
            found = validate(tf.gather(self._weights, rows), tf.gather(self._states, rows))
            return found[: tf.shape(places)[0]]

        return tf.function(values, autograph=False).get_concrete_function(tf.TensorSpec((None,), tf.int32))

    def _steps(
        self,
        weights: tf.Tensor,
        averages: tf.Tensor,
        states: tf.Tensor,
        programs: tf.Tensor,
        rates: tf.Tensor,
        seeds: tf.Tensor,
        decay_steps: tf.Tensor,
        epochs: tf.Tensor,
        plans: tf.Tensor,
        members: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """All steps of an epoch.

        Args:
            averages: (kinds of averages, members, size).
            members: which rows are members; the others are never changed.

        Returns:
            The mean loss of each member, and its weights, averages and state after the epoch.
        """
        network, steps, dtype = self._network, self._single.steps_per_epoch, self._network.dtype
        column: Callable[[tf.Tensor], tf.Tensor] = functools.partial(tf.expand_dims, axis=1)
        names = tuple(AVERAGES)

        def trains(total: tf.Tensor) -> tf.Tensor:
            return tf.logical_and(members, tf.math.is_finite(total))

        def body(step: tf.Tensor, total: tf.Tensor, *before: tf.Tensor) -> tuple[tf.Tensor, ...]:
            weights, averages, states = before
            losses, gradients, after_states = network.gradients(weights, states, plans, step)
            after_averages = tf.stack([averaged(name, averages[index], gradients) for index, name in enumerate(names)])
            numbers = column(epochs * steps + step)
            context = StepContext(
                gradients,
                weights,
                {name: after_averages[index] for index, name in enumerate(names)},
                numbers,
                drawn=lambda places: uniform_of(self._words[0], column(seeds), numbers, places),
                noise=lambda: normal_of(self._words[1], self._words[2], column(seeds), numbers),
                decay_steps=tf.cast(column(decay_steps), dtype),
            )
            update = updates_of(programs, context)
            after = (weights - tf.cast(column(rates), dtype) * update, after_averages, after_states)
            training = trains(total)
            changed = [column(training), column(training)[tf.newaxis], column(training)]
            kept: list[Any] = [tf.where(*parts) for parts in zip(changed, after, before, strict=True)]
            return step + 1, tf.where(training, total + losses, total), *kept

        start = (tf.constant(0), tf.zeros(weights.shape[0], dtype), weights, averages, network.epoch_states(states))
        _, total, weights, averages, states = tf.while_loop(
            lambda step, total, *_: tf.logical_and(step < steps, tf.reduce_any(trains(total))), body, start
        )
        return total / steps, weights, averages, states


def _rows(places: tf.Tensor, width: int) -> tf.Tensor:
    """These places, followed by place 0 as often as is needed for int32 (width,)."""
    return tf.ensure_shape(tf.pad(places, [[0, width - tf.shape(places)[0]]]), (width,))


def _padded(values: Sequence[Any], width: int, kind: Any) -> np.ndarray:
    """The values of the members, and those of the first one again for the rows that are no members."""
    return np.asarray([*values, *[values[0]] * (width - len(values))], kind)
