"""The screening test: rejects update rules that reduce none of four small functions, before any network is trained."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from automl.search_spaces.update_rule.program import LENGTH, update_of
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
    """Runs a rule on four functions of four weights, at every learning rate of a sweep.

    The functions are a quadratic bowl, the bowl with noise in its gradients, the bowl with a start near its minimum,
    and a sum of two Rosenbrock functions. A rule passes if it reduces one of them, at one rate, to less than a quarter
    of its initial value. All functions and rates are one vector, and the rule is an input of the compiled graph. So a
    test takes a fraction of a second and no new trace.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        self._rates = tf.constant(np.asarray(rates, np.float32)[np.newaxis, :, np.newaxis])
        starts = np.stack([FAR, FAR, NEAR, ROSENBROCK_START])
        self._start = tf.constant(np.repeat(starts[:, np.newaxis], len(rates), axis=1))
        size = self._start.shape.num_elements()
        self._words = [counters(size, stream) for stream in range(5)]  # three of the rule, two of the noise

    def passes(self, program: np.ndarray, seed: int) -> bool:
        """Whether the encoded rule reduces one of the functions."""
        return bool(self._compiled(tf.constant(program), tf.constant(seed % 2**32, tf.uint32)))

    @functools.cached_property
    def _compiled(self) -> tf.types.experimental.ConcreteFunction:
        signature = (tf.TensorSpec((LENGTH,), tf.int32), tf.TensorSpec((), tf.uint32))
        return tf.function(self._descends, autograph=False).get_concrete_function(*signature)

    def _descends(self, program: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        shape = self._start.shape
        size, names = shape.num_elements(), tuple(AVERAGES)

        def body(
            step: tf.Tensor, weights: tf.Tensor, averages: tf.Tensor, reached: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            noise = NOISE * tf.reshape(normal_of(self._words[3], self._words[4], seed, step), shape)
            values, slopes = functions(weights)
            gradient = tf.reshape(slopes + noise * [[[0.0]], [[1.0]], [[0.0]], [[0.0]]], (size,))
            averages = tf.stack([averaged(name, averages[index], gradient) for index, name in enumerate(names)])
            context = StepContext(
                gradient,
                tf.reshape(weights, (size,)),
                {name: averages[index] for index, name in enumerate(names)},
                step,
                drawn=lambda place: uniform_of(self._words[0], seed, step, place),
                noise=lambda: normal_of(self._words[1], self._words[2], seed, step),
                decay_steps=float(STEPS),
            )
            weights -= self._rates * tf.reshape(update_of(program, context), shape)
            return step + 1, weights, averages, reached + tf.where(step >= STEPS - LAST, values / LAST, 0.0)

        start = (tf.constant(0), self._start, tf.zeros((len(names), size)), tf.zeros(shape[:2]))
        *_, reached = tf.while_loop(lambda step, *_: step < STEPS, body, start)
        at_first, _ = functions(self._start)
        return tf.reduce_any(reached < LARGEST_SHARE * at_first)  # NaN is not less


def functions(weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The value of each function at each rate, (4, rates), and its gradient, (4, rates, 4).

    Args:
        weights: (4, rates, 4), four for each function and rate. The first three functions are the bowl, the fourth is
            the sum of two Rosenbrock functions, (1 - x)^2 + 100 (y - x^2)^2. All are functions of weights - CENTRE.
    """
    off = weights - CENTRE
    bowls, slopes = tf.reduce_sum(0.5 * CURVATURE * off[:3] ** 2, axis=-1), CURVATURE * off[:3]
    x, y = off[3:, :, ::2], off[3:, :, 1::2]
    valley = y - x**2
    rosenbrock = tf.reduce_sum((1.0 - x) ** 2 + 100.0 * valley**2, axis=-1)
    by_x, by_y = -2.0 * (1.0 - x) - 400.0 * x * valley, 200.0 * valley
    interleaved = tf.reshape(tf.stack([by_x, by_y], axis=-1), (1, -1, 4))
    return tf.concat([bowls, rosenbrock], axis=0), tf.concat([slopes, interleaved], axis=0)
