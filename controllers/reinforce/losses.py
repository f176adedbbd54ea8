"""The mathematics of REINFORCE, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def reinforce_loss(log_probs: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
    """Surrogate loss whose gradient is the REINFORCE estimate.

        L = -mean_b [ A_b * sum_t log pi(a_bt | a_b,<t) ]

    The advantage is a constant: nothing flows back through it.

    Args:
        log_probs: float32 (batch, steps), natural log-probability of each answer; 0 where forced or padded.
        advantages: float32 (batch,), for example reward minus baseline.

    Returns:
        float32 scalar, in nats times the advantage's unit.

    Source: Williams 1992, section 4; Zoph & Le 2017 (arXiv:1611.01578), section 3.2.
    """
    return -tf.reduce_mean(tf.stop_gradient(advantages) * tf.reduce_sum(log_probs, axis=1))


def clipped_loss(log_probs: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor, clip: float) -> tf.Tensor:
    """The clipped surrogate of proximal policy optimization, with one ratio a decision.

        r_bt = exp(log pi(a_bt) - log pi_old(a_bt))
        L = -mean_b [ sum_t min(r_bt A_b, clip(r_bt, 1 - clip, 1 + clip) A_b) - A_b ]

    The last A_b is a constant: with it, forced and padded steps, whose ratio is 1, count nothing.

    Args:
        log_probs: float32 (batch, steps), natural log-probability of each answer; 0 where forced or padded.
        old_log_probs: float32 (batch, steps), what it was when the child was drawn; NaN where nobody knows, for which
            the ratio is 1.
        advantages: float32 (batch,).
        clip: how far a ratio may go, in (0, 1).

    Source: Schulman et al. 2017 (arXiv:1707.06347), equation 7.
    """
    known = tf.where(tf.math.is_nan(old_log_probs), log_probs, old_log_probs)
    ratio = tf.exp(log_probs - tf.stop_gradient(known))
    gain = tf.stop_gradient(advantages)[:, tf.newaxis]
    clipped = tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip)
    return -tf.reduce_mean(tf.reduce_sum(tf.minimum(ratio * gain, clipped * gain) - gain, axis=1))


def imitation_loss(log_probs: tf.Tensor) -> tf.Tensor:
    """Mean negative log-likelihood of whole children, in nats: the cross-entropy method's fit to an elite.

    Args:
        log_probs: float32 (children, steps), 0 where forced or padded.

    Source: de Boer et al. 2005, "A tutorial on the cross-entropy method", section 3.
    """
    return -tf.reduce_mean(tf.reduce_sum(log_probs, axis=1))


def moving_baseline(baseline: float | None, rewards: Sequence[float], decay: float) -> tuple[float, float]:
    """The baseline that judges this batch, and the one that judges the next.

    The first batch is judged by its own mean; every later one by the exponential moving average before it, so that a
    reward never judges itself.

        b' = decay * b + (1 - decay) * mean(R)

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.2; the start is ours, the paper does not give one.
    """
    mean = float(np.mean(rewards))
    before = mean if baseline is None else baseline
    return before, decay * before + (1.0 - decay) * mean


def rank_advantages(rewards: Sequence[float], past: Sequence[float]) -> list[float]:
    """Each reward's place among the past and its own batch, from -1 (lowest) to 1 (highest); equals share a place.

    Ranks do not change when rewards are scaled, shifted or bent, so one learning rate serves every task.
    """
    pool = np.sort(np.asarray([*past, *rewards], dtype=np.float64))
    if len(pool) < 2:
        return [0.0] * len(rewards)
    below = np.searchsorted(pool, rewards, side="left")
    above = len(pool) - np.searchsorted(pool, rewards, side="right")
    places: Any = (below - above) / (len(pool) - 1)
    return [float(place) for place in places]


def adam(
    gradient: tf.Tensor, first: tf.Tensor, second: tf.Tensor, step: tf.Tensor, learning_rate: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One Adam update: (change of the parameter, new first moment, new second moment).

        m' = 0.9 m + 0.1 g        v' = 0.999 v + 0.001 g^2
        change = -rate * sqrt(1 - 0.999^t) / (1 - 0.9^t) * m' / (sqrt(v') + 1e-8)

    Args:
        step: float32 scalar, t, from 1.

    Source: Kingma & Ba 2015 (arXiv:1412.6980), the efficient form at the end of section 2. Keras' optimizer is not used
    because the policy's tables grow when a space shows a new kind of decision.
    """
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * tf.square(gradient)
    rate = learning_rate * tf.sqrt(1.0 - 0.999**step) / (1.0 - 0.9**step)
    return -rate * first / (tf.sqrt(second) + 1e-8), first, second
