"""Programs of several rules at once: each member's update is that of its rule alone."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from automl.search_spaces.space import Space
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.program import WORDS, encode, update_of, updates_of
from automl.search_spaces.update_rule.semantics import AVERAGES, StepContext, counters, normal_of, uniform_of
from automl.search_spaces.update_rule.space import update_rule
from automl.search_spaces.update_rule.spec import UpdateRule
from automl.testing.spaces import sample

SIZE = 7


def context(row, dtype="float32"):
    """The step of one member (a row number) or of several (a list)."""
    rows = [row] if isinstance(row, int) else row
    drawn = [np.random.default_rng(index).normal(size=(2 + len(AVERAGES), SIZE)) for index in rows]
    values = tf.constant(np.stack(drawn, axis=1), dtype)  # kinds, members, size
    column = (lambda numbers, kind: tf.constant(numbers, kind)[:, None]) if isinstance(row, list) else None
    pick = (lambda x: x) if isinstance(row, list) else (lambda x: x[0])
    seeds = column(rows, tf.uint32) if column else tf.constant(row, tf.uint32)
    steps = column([3 + index for index in rows], tf.int32) if column else tf.constant(3 + row)
    decay_steps = column([20.0 + index for index in rows], dtype) if column else tf.constant(20.0 + row, dtype)
    averages = {}
    for index, name in enumerate(AVERAGES):
        average = values[2 + index]
        averages[name] = pick(average if name in ("first", "third") else tf.abs(average))
    words = [counters(SIZE, stream) for stream in range(3)]
    return StepContext(
        pick(values[0]),
        pick(values[1]),
        averages,
        steps,
        drawn=lambda places: uniform_of(words[0], seeds, steps, places),
        noise=lambda: normal_of(words[1], words[2], seeds, steps),
        decay_steps=decay_steps,
    )


def assert_each_is_alone(rules, dtype="float32"):
    programs = np.stack([encode(rule) for rule in rules])
    together = updates_of(tf.constant(programs), context(list(range(len(rules))), dtype)).numpy()
    for row, rule in enumerate(rules):
        alone = update_of(tf.constant(programs[row]), context(row, dtype)).numpy()
        np.testing.assert_allclose(together[row], alone, rtol=1e-4, atol=1e-6, err_msg=str(rule))


def test_named_rules_together():
    assert_each_is_alone(list(RULES.values()))


def test_every_operand_alone():
    assert_each_is_alone([UpdateRule.parse(word) for word in WORDS])


@pytest.mark.parametrize("first", [0, 24, 48])
def test_sampled_rules_together(first):
    space = Space(functools.partial(update_rule, groups=(1, 2, 3, 4), decays=True))
    assert_each_is_alone([sample(space, seed).spec for seed in range(first, first + 24)])


def test_rules_with_masks_of_their_own_in_double_precision():
    texts = ["g", "drop(drop(g, 0.3), 0.5) + drop(m, 0.3)", "noise * linear_decay", "pow(g, 2) / v"]
    assert_each_is_alone([UpdateRule.parse(text) for text in texts], "float64")
