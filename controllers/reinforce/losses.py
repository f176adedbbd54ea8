"""The mathematics of REINFORCE, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def reinforce_loss(log_probs: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
    """Surrogate loss whose gradient is the REINFORCE estimate.

        L = -mean_b [ A_b * sum_t log pi(a_bt | a_b,<t) ]

    No gradient flows through the advantage.

    Args:
        log_probs: float32 (batch, steps), natural log-probability of each answer; 0 where forced or padded.
        advantages: float32 (batch,), for example reward minus baseline.

    Returns:
        float32 scalar, in nats times the advantage's unit.

    Source: Williams 1992, section 4; Zoph & Le 2017 (arXiv:1611.01578), section 3.2.
    """
    return -tf.reduce_mean(tf.stop_gradient(advantages) * tf.reduce_sum(log_probs, axis=1))


def clipped_loss(log_probs: tf.Tensor, old_log_probs: tf.Tensor, advantages: tf.Tensor, clip: float) -> tf.Tensor:
    """The clipped surrogate loss of proximal policy optimization, with one ratio per decision.

        r_bt = exp(log pi(a_bt) - log pi_old(a_bt))
        L = -mean_b [ sum_t min(r_bt A_b, clip(r_bt, 1 - clip, 1 + clip) A_b) - A_b ]

    Subtracting the constant A_b makes forced and padded steps, whose ratio is 1, contribute 0.

    Args:
        log_probs: float32 (batch, steps), natural log-probability of each answer; 0 where forced or padded.
        old_log_probs: float32 (batch, steps), the same when the child was drawn; NaN where unknown, which makes the
            ratio 1.
        advantages: float32 (batch,). No gradient flows through them.
        clip: how far a ratio may be from 1, in (0, 1).

    Returns:
        float32 scalar, in the advantages' unit.

    Source: Schulman et al. 2017 (arXiv:1707.06347), equation 7.
    """
    old = tf.where(tf.math.is_nan(old_log_probs), log_probs, old_log_probs)
    ratio = tf.exp(log_probs - tf.stop_gradient(old))
    advantage = tf.stop_gradient(advantages)[:, tf.newaxis]
    clipped = tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip)
    return -tf.reduce_mean(tf.reduce_sum(tf.minimum(ratio * advantage, clipped * advantage) - advantage, axis=1))


def imitation_loss(log_probs: tf.Tensor) -> tf.Tensor:
    """Mean negative log-likelihood of whole children: the cross-entropy method's fit to an elite.

        L = -mean_c [ sum_t log pi(a_ct | a_c,<t) ]

    Args:
        log_probs: float32 (children, steps), natural log-probability of each answer; 0 where forced or padded.

    Returns:
        float32 scalar, in nats.

    Source: de Boer et al. 2005, "A tutorial on the cross-entropy method", section 3.
    """
    return -tf.reduce_mean(tf.reduce_sum(log_probs, axis=1))


def moving_baseline(baseline: float | None, rewards: Sequence[float], decay: float) -> tuple[float, float]:
    """The baseline of this batch, and the baseline of the next one.

        b' = decay * b + (1 - decay) * mean(R)

    The baseline of the first batch is its own mean. Later baselines are averages of earlier batches only.

    Args:
        baseline: b, in the rewards' unit; None for the first batch.
        rewards: R, of this batch.
        decay: in [0, 1).

    Returns:
        (b, b'), in the rewards' unit.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.2. The paper does not give b for the first batch.
    """
    mean = float(np.mean(rewards))
    before = mean if baseline is None else baseline
    return before, decay * before + (1.0 - decay) * mean


def rank_advantages(rewards: Sequence[float], past: Sequence[float]) -> list[float]:
    """Each reward's rank among the past rewards and its own batch, from -1 (lowest) to 1 (highest); ties share a rank.

        A_i = (number of rewards below R_i - number above R_i) / (number of rewards - 1)

    Ranks do not change under increasing transformations of the reward, so one learning rate suits every task.

    Args:
        rewards: of this batch.
        past: earlier rewards.

    Returns:
        One advantage for each reward of the batch; all 0 if there is one reward in total.
    """
    pool = np.sort(np.asarray([*past, *rewards], dtype=np.float64))
    if len(pool) < 2:
        return [0.0] * len(rewards)
    below = np.searchsorted(pool, rewards, side="left")
    above = len(pool) - np.searchsorted(pool, rewards, side="right")
    ranks: Any = (below - above) / (len(pool) - 1)
    return [float(rank) for rank in ranks]


def adam(
    gradient: tf.Tensor, first: tf.Tensor, second: tf.Tensor, step: tf.Tensor, learning_rate: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One Adam update: (change of the parameter, new first moment, new second moment).

        m' = 0.9 m + 0.1 g        v' = 0.999 v + 0.001 g^2
        change = -rate * sqrt(1 - 0.999^t) / (1 - 0.9^t) * m' / (sqrt(v') + 1e-8)

    Args:
        gradient, first, second: g, m and v, float32 tensors of one shape.
        step: float32 scalar, t; 1 for the first update.

    Source: Kingma & Ba 2015 (arXiv:1412.6980), the efficient form at the end of section 2. Keras' optimizer is not used
    because the policy's tables grow when a space yields a new kind of decision.
    """
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * tf.square(gradient)
    rate = learning_rate * tf.sqrt(1.0 - 0.999**step) / (1.0 - 0.9**step)
    return -rate * first / (tf.sqrt(second) + 1e-8), first, second
