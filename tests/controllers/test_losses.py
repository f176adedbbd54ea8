"""The mathematics of REINFORCE, compared with numbers computed by hand and with Keras."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.controllers.reinforce.losses import (
    adam,
    clipped_loss,
    imitation_loss,
    moving_baseline,
    rank_advantages,
    reinforce_loss,
)

LOG_PROBS = [[-1.0, -2.0], [-0.5, 0.0]]  # two children, of which the second ends after one step


def test_reinforce_loss_hand_computed():
    log_probs, advantages = tf.constant(LOG_PROBS), tf.constant([2.0, -1.0])
    with tf.GradientTape() as tape:
        tape.watch([log_probs, advantages])
        loss = reinforce_loss(log_probs, advantages)
    assert float(loss) == 2.75  # -(2 * -3 + -1 * -0.5) / 2
    to_log_probs, to_advantages = tape.gradient(loss, [log_probs, advantages])
    np.testing.assert_array_equal(to_log_probs, [[-1.0, -1.0], [0.5, 0.5]])  # -advantage / 2
    assert to_advantages is None


def test_clipped_loss_hand_computed():
    # Child 0, advantage 2: ratios 1.5 and 0.5, clipped at 0.8 and 1.2: min(3, 2.4) - 2 and min(1, 1.6) - 2.
    # Child 1, advantage -1: ratio 1.5, min(-1.5, -1.2) + 1; a padded step counts as 0.
    now = tf.constant([[math.log(0.6), math.log(0.2)], [math.log(0.3), 0.0]])
    old = tf.constant([[math.log(0.4), math.log(0.4)], [math.log(0.2), 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(now)
        loss = clipped_loss(now, old, tf.constant([2.0, -1.0]), 0.2)
    assert float(loss) == pytest.approx(-((0.4 - 1.0) + (-0.5 + 0.0)) / 2)
    # The gradient is 0 where the clipped value is the smaller one; elsewhere it is -ratio * advantage / 2.
    np.testing.assert_allclose(tape.gradient(loss, now), [[0.0, -0.5], [0.75, 0.5]], rtol=1e-5)


def test_a_first_clipped_step_is_that_of_reinforce():
    log_probs, advantages = tf.constant(LOG_PROBS), tf.constant([2.0, -1.0])
    gradients = []
    for old in (log_probs, tf.fill((2, 2), math.nan)):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(log_probs)
            losses = clipped_loss(log_probs, old, advantages, 0.2), reinforce_loss(log_probs, advantages)
        gradients += [tape.gradient(loss, log_probs).numpy().tolist() for loss in losses]
    assert gradients[0] == gradients[1] == gradients[2] == gradients[3]


def test_imitation_loss_hand_computed():
    assert float(imitation_loss(tf.constant(LOG_PROBS))) == 1.75  # (3 + 0.5) / 2


def test_the_baseline_starts_at_the_first_mean_and_uses_its_previous_value():
    assert moving_baseline(None, [1.0, 3.0], 0.75) == (2.0, 2.0)
    assert moving_baseline(2.0, [6.0], 0.75) == (2.0, 3.0)  # 0.75 * 2 + 0.25 * 6
    assert moving_baseline(3.0, [1.0, 0.0], 0.0) == (3.0, 0.5)


@pytest.mark.parametrize(
    ("rewards", "past", "advantages"),
    [
        ([5.0], [], [0.0]),
        ([1.0, 3.0, 2.0], [], [-1.0, 1.0, 0.0]),
        ([7.0, 7.0], [], [0.0, 0.0]),
        ([1.0, 2.0, 2.0, 4.0], [], [-1.0, 0.0, 0.0, 1.0]),
        ([2.0], [0.0, 4.0], [0.0]),
        ([9.0], [1.0, 1.0], [1.0]),
        ([1.0], [1.0, 9.0], [-0.5]),  # none below, one of the two others above
        ([1e30, -1e30, 0.0], [], [1.0, -1.0, 0.0]),
    ],
)
def test_rank_advantages_hand_computed(rewards, past, advantages):
    assert rank_advantages(rewards, past) == advantages


def test_ranks_do_not_change_under_a_monotone_function():
    rewards, past = [0.2, 0.9, 0.4], [0.1, 0.5, 0.4]
    bent = [[math.exp(9 * reward) - 3 for reward in some] for some in (rewards, past)]
    assert rank_advantages(*bent) == rank_advantages(rewards, past)


def test_adam_hand_computed():
    change, first, second = adam(tf.constant([2.0]), tf.constant([0.0]), tf.constant([0.0]), tf.constant(1.0), 0.5)
    np.testing.assert_allclose(change, [-0.5], rtol=1e-4)  # the first step is the rate, against the gradient's sign
    np.testing.assert_allclose([first[0], second[0]], [0.2, 0.004], rtol=1e-6)
    change, first, second = adam(tf.constant([0.0]), first, second, tf.constant(2.0), 0.5)
    np.testing.assert_allclose([first[0], second[0]], [0.18, 0.003996], rtol=1e-6)
    # -0.5 * sqrt(1 - 0.998001) / 0.19 * 0.18 / sqrt(0.003996)
    np.testing.assert_allclose(change, [-0.335029], rtol=1e-4)


def test_adam_is_that_of_keras():
    optimizer = keras.optimizers.Adam(0.01, epsilon=1e-8)
    theirs = keras.Variable([0.3, -2.0, 0.0])
    ours = tf.constant([0.3, -2.0, 0.0])
    first = second = tf.zeros(3)
    for step, gradient in enumerate(([1.0, -2.0, 0.0], [0.5, 3.0, 1e-6], [0.0, 0.0, 0.0], [-9.0, 1.0, 4.0], [1.0] * 3)):
        optimizer.apply([tf.constant(gradient)], [theirs])
        change, first, second = adam(tf.constant(gradient), first, second, tf.constant(step + 1.0), 0.01)
        ours += change
        # float32, and the two multiply in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
