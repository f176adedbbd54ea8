import math
import pkgutil

import pytest

from automl.child_trainers.recipes import RECIPES, Recipe
from automl.child_trainers.registry import TASKS


def test_the_paper_s_recipe():
    """Zoph & Le 2017, section 4.1: the 45,000 images are what `load_cifar10` leaves after 5,000 for validation."""
    recipe = Recipe(**RECIPES["cifar10"]["paper"])
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4)
    assert (recipe.epochs, recipe.last_epochs, recipe.augment) == (50, 5, True)
    assert (recipe.num_train, recipe.num_validation) == (None, None)
    assert (recipe.batch_size, recipe.schedule) == (64, "steps")  # DenseNet's, which the section names


def test_every_task_has_recipes_and_all_of_them_are_valid():
    assert set(RECIPES) == set(TASKS)
    for task, recipes in RECIPES.items():
        assert recipes
        for constants in recipes.values():
            pkgutil.resolve_name(TASKS[task]).recipe_kind(**constants)


def test_defaults():
    assert [next(iter(recipes)) for recipes in RECIPES.values()] == [
        *("default", "quick", "default"),
        *3 * ("quick",),
        *2 * ("default",),
    ]


def test_digits_are_not_flipped():
    assert not RECIPES["digits"]["default"]["augment"]
    assert not RECIPES["npz"]["default"]["augment"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "task.epochs is 0; it must be a whole number above 0."),
        ("epochs", 2.5, "task.epochs is 2.5; it must be a whole number above 0."),
        ("epochs", "many", "task.epochs is 'many'; it must be a whole number above 0."),
        ("epochs", True, "task.epochs is True; it must be a whole number above 0."),
        ("batch_size", -1, "task.batch_size is -1; it must be a whole number above 0."),
        ("last_epochs", 0, "task.last_epochs is 0; it must be a whole number above 0."),
        ("num_train", 0, "task.num_train is 0; it must be a whole number above 0, or null for all."),
        ("num_validation", 1.5, "task.num_validation is 1.5; it must be a whole number above 0, or null for all."),
        ("learning_rate", 0, "task.learning_rate is 0; it must be a number above 0."),
        ("learning_rate", math.nan, "task.learning_rate is nan; it must be a number above 0."),
        ("learning_rate", [0.1], "task.learning_rate is [0.1]; it must be a number above 0."),
        ("momentum", 1.0, "task.momentum is 1.0; it must be a number in [0, 1)."),
        ("momentum", None, "task.momentum is None; it must be a number in [0, 1)."),
        ("weight_decay", -1e-4, "task.weight_decay is -0.0001; it must be a number, 0 or more."),
        ("augment", "no", "task.augment is 'no'; it must be true or false."),
        ("schedule", "linear", "task.schedule is 'linear'; it is one of steps, cosine."),
    ],
)
def test_bad_values_are_refused(name, value, message):
    with pytest.raises(ValueError) as caught:
        Recipe(**{name: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 1), ("momentum", 0), ("weight_decay", 0)])
def test_whole_numbers_are_numbers(name, value):
    assert getattr(Recipe(**{name: value}), name) == value
