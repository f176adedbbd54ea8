"""Trials of optimizers: their schedules are those of the recipes."""

import pytest
import tensorflow as tf

from automl.child_trainers.images.training import learning_rate
from automl.child_trainers.recipes import SCHEDULES, Recipe
from automl.child_trainers.update_rules.trial import _image_schedule, make_optimizer, meaning_of, rule_name
from automl.search_spaces.update_rule.spec import UpdateRule


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [7, 8, 40])
def test_images_have_the_rates_of_their_recipe(schedule, steps):
    recipe = Recipe(schedule=schedule, learning_rate=0.3)
    rates = _image_schedule(recipe, 0.3, steps)
    for step in range(steps):
        assert float(rates(step)) == pytest.approx(float(learning_rate(recipe, tf.constant(step), steps)), abs=1e-7)


def test_optimizers_by_text():
    import keras

    assert type(make_optimizer("AdamW", 0.1, 10, 0)) is keras.optimizers.AdamW
    assert make_optimizer("powersign", 0.1, 10, 0).rule == "exp(sign(g) * sign(m)) * g"
    assert make_optimizer("-g", 0.1, 10, 0).rule == "-g"


def test_a_rule_of_the_first_version_is_compared_as_it_was_found():
    twice = UpdateRule.parse("drop(g, 0.5) - drop(g, 0.5)")
    kept = twice.with_behaviour({"drop_masks": 1})
    assert rule_name(twice) == str(twice)
    assert rule_name(kept) == f"{twice} (one mask for all drops)"
    assert [make_optimizer(rule_name(rule), 0.1, 10, 0).version for rule in (twice, kept)] == [2, 1]
    once = UpdateRule.parse("drop(g, 0.5)").with_behaviour({"drop_masks": 1})
    assert rule_name(once) == str(once)
    changed = [name for name in (str(twice), rule_name(kept), str(once), "adam", "AdamW") if meaning_of(name)]
    assert changed == [str(twice)]  # what an earlier comparison has found of it was of another rule
