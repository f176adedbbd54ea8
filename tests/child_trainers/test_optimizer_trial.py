"""Trials of optimizers: their schedules are those of the recipes."""

import pytest
import tensorflow as tf

from child_trainers.image_training import learning_rate
from child_trainers.optimizer_trial import _image_schedule, make_optimizer
from child_trainers.recipes import SCHEDULES, Recipe


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
