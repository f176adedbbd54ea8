"""The screening test: rejects update rules that reduce none of four small functions, before any network is trained."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from automl.search_spaces.update_rule.program import LENGTH, update_of, updates_of
from automl.search_spaces.update_rule.semantics import AVERAGES, StepContext, averaged, counters, normal_of, uniform_of

STEPS = 200
LAST = 20  # the result of a rule is the mean value over so many last steps
LARGEST_SHARE = 0.25  # of the value at the start; a result below it passes
NOISE = 0.5  # standard deviation of the second function's gradients

# Shrinking the weights or moving in a fixed direction must not lead to a minimum, so minima are off 0, with starts
# on several sides.
CENTRE = np.array([3.0, -3.0, 3.0, -3.0], np.float32)
AROUND = np.array([1.0, -1.0, -1.0, 1.0], np.float32)
FAR, NEAR = CENTRE + AROUND, CENTRE + 0.01 * AROUND  # a rule that clips at 1e-5 takes steps of 1e-4 at most, at rate 10
CURVATURE = np.array([1.0, 1.0, 10.0, 10.0], np.float32)
ROSENBROCK_START = CENTRE + np.array([-1.2, 1.0, 1.2, 0.8], np.float32)


class Screen:
    """Runs rules on four functions of four weights, at every learning rate of a sweep.

    The functions are a quadratic bowl, the bowl with noise in its gradients, the bowl with a start near its minimum,
    and a sum of two Rosenbrock functions. A rule passes if it reduces one of them, at one rate, to less than a quarter
    of its initial value. All functions and rates are one vector, and the rule is an input of the compiled graph. So a
    test takes a fraction of a second and no new trace.

    Args:
        together: how many rules are run at once: several on a GPU, where their operations take as long as those of one.
    """

    def __init__(self, rates: Sequence[float], *, together: int = 1) -> None:
        self._rates = tf.constant(np.asarray(rates, np.float32)[np.newaxis, :, np.newaxis])
        self._together = together
        starts = np.stack([FAR, FAR, NEAR, ROSENBROCK_START])
        self._start = tf.constant(np.repeat(starts[:, np.newaxis], len(rates), axis=1))
        size = self._start.shape.num_elements()
        self._words = [counters(size, stream) for stream in range(5)]  # three of the rule, two of the noise

    def passes(self, programs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[bool]:
        """Whether each encoded rule reduces one of the functions."""
        found: list[bool] = []
        for first in range(0, len(programs), self._together):
            rows = [min(first + row, len(programs) - 1) for row in range(self._together)]
            passed = self._compiled(
                tf.constant(np.stack([programs[row] for row in rows])),
                tf.constant([seeds[row] % 2**32 for row in rows], tf.uint32),
            )
            found += [bool(value) for value in passed.numpy()]
        return found[: len(programs)]

    @functools.cached_property
    def _compiled(self) -> tf.types.experimental.ConcreteFunction:
        signature = (tf.TensorSpec((self._together, LENGTH), tf.int32), tf.TensorSpec((self._together,), tf.uint32))
        return tf.function(self._descends, autograph=False).get_concrete_function(*signature)

    def _descends(self, programs: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Whether each rule passes, bool (rules,)."""
        rules, size, names = self._together, self._start.shape.num_elements(), tuple(AVERAGES)
        shape = (rules, *self._start.shape)
        seeds = seeds[:, tf.newaxis]
        with_noise = np.reshape([0.0, NOISE, 0.0, 0.0], (4, 1, 1)).astype(np.float32)

        def body(
            step: tf.Tensor, weights: tf.Tensor, averages: tf.Tensor, reached: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            noise = tf.reshape(normal_of(self._words[3], self._words[4], seeds, step), shape)
            values, slopes = functions(weights)
            gradient = tf.reshape(slopes + noise * with_noise, (rules, size))
            averages = tf.stack([averaged(name, averages[index], gradient) for index, name in enumerate(names)])
            context = StepContext(
                gradient,
                tf.reshape(weights, (rules, size)),
                {name: averages[index] for index, name in enumerate(names)},
                step,
                drawn=lambda places: uniform_of(self._words[0], seeds, step, places),
                noise=lambda: normal_of(self._words[1], self._words[2], seeds, step),
                decay_steps=float(STEPS),
            )
            weights -= self._rates * tf.reshape(_updates(programs, context), shape)
            return step + 1, weights, averages, reached + tf.where(step >= STEPS - LAST, values / LAST, 0.0)

        start = (
            tf.constant(0),
            tf.repeat(self._start[tf.newaxis], rules, axis=0),
            tf.zeros((len(names), rules, size)),
            tf.zeros(shape[:3]),
        )
        *_, reached = tf.while_loop(lambda step, *_: step < STEPS, body, start)
        at_first, _ = functions(self._start)
        return tf.reduce_any(reached < LARGEST_SHARE * at_first, axis=(1, 2))  # NaN is not less


def _updates(programs: tf.Tensor, context: StepContext) -> tf.Tensor:
    """The update of each rule, (rules, size). A single rule computes only its own words."""
    if programs.shape[0] > 1:
        return updates_of(programs, context)
    averages = {name: average[0] for name, average in context.averages.items()}
    single = dataclasses.replace(
        context,
        gradient=context.gradient[0],
        weight=context.weight[0],
        averages=averages,
        drawn=lambda place: context.drawn(place)[0],
        noise=lambda: context.noise()[0],
    )
    return update_of(programs[0], single)[tf.newaxis]


def functions(weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The value of each function at each rate, (..., 4, rates), and its gradient, (..., 4, rates, 4).

    Args:
        weights: (..., 4, rates, 4), four for each function and rate. The first three functions are the bowl, the fourth
            is the sum of two Rosenbrock functions, (1 - x)^2 + 100 (y - x^2)^2. All are functions of weights - CENTRE.
    """
    off = weights - CENTRE
    of_bowls, of_valleys = off[..., :3, :, :], off[..., 3:, :, :]
    bowls, slopes = tf.reduce_sum(0.5 * CURVATURE * of_bowls**2, axis=-1), CURVATURE * of_bowls
    x, y = of_valleys[..., ::2], of_valleys[..., 1::2]
    valley = y - x**2
    rosenbrock = tf.reduce_sum((1.0 - x) ** 2 + 100.0 * valley**2, axis=-1)
    by_x, by_y = -2.0 * (1.0 - x) - 400.0 * x * valley, 200.0 * valley
    interleaved = tf.reshape(tf.stack([by_x, by_y], axis=-1), of_valleys.shape)
    return tf.concat([bowls, rosenbrock], axis=-2), tf.concat([slopes, interleaved], axis=-3)
