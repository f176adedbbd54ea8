"""Populations of update rules: one compiled graph gives what each rule gives alone, in Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.data.digits import load_digits_data
from automl.child_trainers.data.pydoc_topics import load_pydoc
from automl.child_trainers.images.training import to_device
from automl.child_trainers.recipes import QUICK_TEXT, LanguageRecipe
from automl.child_trainers.text.model import LanguageModel
from automl.child_trainers.text.training import LanguageTrainer
from automl.child_trainers.text.training import to_device as text_to_device
from automl.child_trainers.update_rules.flat_networks import ConvChild, TextChild, keras_child
from automl.child_trainers.update_rules.in_turn import InTurn
from automl.child_trainers.update_rules.population import Member
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.program import encode
from automl.search_spaces.update_rule.spec import UpdateRule

TEXTS = ["g", "adam", "momentum", "exp(linear_decay * sign(g) * sign(m)) * g", "g + drop(m, 0.3) + noise"]
TEXTS += ["drop(drop(g, 0.3), 0.5) + drop(m, 0.3)"]


@pytest.fixture(scope="module")
def digits():
    return to_device(load_digits_data().limit(320, 100))


@pytest.fixture(scope="module")
def network(digits):
    return ConvChild(digits, 10, 32)


@pytest.fixture(scope="module")
def population(network):
    return InTurn(network, len(TEXTS) + 1)


def member(text, rate=0.05, seed=3, steps=20):
    rule = RULES[text] if text in RULES else UpdateRule.parse(text)
    return Member(encode(rule), rate, seed, steps)


def in_order(weights):
    """The population's weights in the order of the Keras model's."""
    parts = ("kernel", "gamma", "beta", "moving_mean", "moving_variance")
    names = [f"conv{index}/{part}" for index in range(2) for part in parts]
    return [weights[name] for name in (*names, "dense/kernel", "dense/bias")]


@pytest.mark.parametrize("text", TEXTS)
def test_an_epoch_is_that_of_keras_with_the_rule_as_its_optimizer(population, network, digits, text):
    trained = member(text)
    population.begin(0, trained)
    model = keras_child((8, 8, 1), 10, weights=population.weights(0))
    (loss,) = population.train_epoch([0], [0])
    optimizer = UpdateRule.parse(text).optimizer(learning_rate=0.05, decay_steps=20, seed=3)
    order = tf.random.experimental.stateless_shuffle(tf.range(320), seed=[3, 0]).numpy()
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = []
    for step in range(10):
        chosen = order[step * 32 : (step + 1) * 32]
        with tf.GradientTape() as tape:
            logits = model(tf.gather(digits.x_train, chosen), training=True)
            value = cross_entropy(tf.gather(digits.y_train, chosen), logits)
        variables = [variable.value for variable in model.trainable_variables]
        optimizer.apply(tape.gradient(value, variables), model.trainable_variables)
        losses.append(float(value))
    assert loss == pytest.approx(np.mean(losses), rel=1e-3)
    pairs = zip(in_order(population.weights(0)), model.get_weights(), strict=True)
    close = np.concatenate([np.isclose(*pair, rtol=5e-3, atol=5e-4).ravel() for pair in pairs])
    # Rounding may turn the sign of a gradient near 0.
    assert close.mean() > 0.999 if "sign" in text else close.all()
    (value,) = population.validate([0])
    right = model.predict(digits.x_validation, verbose=0).argmax(axis=1) == digits.y_validation.numpy()
    assert value == pytest.approx(right.mean(), abs=0.0101)


def test_members_do_not_touch_each_other(population):
    together = [member(text, seed=seed) for seed, text in enumerate(TEXTS)]
    for place, one in enumerate(together):
        population.begin(place, one)
    both = [population.train_epoch(range(len(TEXTS)), [epoch] * len(TEXTS)) for epoch in range(2)]
    values = population.validate(range(len(TEXTS)))
    alone = len(TEXTS)
    for place, one in enumerate(together):
        population.begin(alone, one)
        assert [population.train_epoch([alone], [epoch]) for epoch in range(2)] == [[epoch[place]] for epoch in both]
        assert population.validate([alone]) == [values[place]]


def test_a_member_that_diverges_ends_alone_and_at_once(population):
    before = population.steps_done()
    population.begin(0, member("log(abs(g - g))"))  # infinite at once, where a processor may keep a large rate's finite
    population.begin(1, member("g"))
    bad, good = population.train_epoch([0, 1], [0, 0])
    assert not np.isfinite(bad) and np.isfinite(good)
    assert population.steps_done() - before < 10 + 5
    assert population.traces <= 2  # one of training and one of validation, for every rule so far


@pytest.mark.parametrize("state_reset", [0.0, 0.3])
def test_the_text_child_learns_and_equals_the_trainer_of_language_models(state_reset):
    constants = {"units": 24, "layers": 1, "steady_epochs": 9, "epochs": 1, "state_reset": state_reset}
    recipe = LanguageRecipe(**(QUICK_TEXT | constants))
    text = load_pydoc(level="word", vocabulary_size=200).limit(4000, 400)
    data = text_to_device(text, recipe.batch_size)
    model = LanguageModel(LSTM(), len(text.vocabulary), 24, recipe, seed=5)
    child = TextChild(model, data)
    population = InTurn(child, 1)
    population.begin(0, member("g", rate=recipe.learning_rate, seed=5, steps=child.steps_per_epoch))
    trainer = LanguageTrainer(model, data, recipe, 5)
    expected = trainer.train_epoch(0)
    assert population.train_epoch([0], [0]) == [pytest.approx(expected, rel=1e-4)]
    assert population.validate([0]) == [pytest.approx(trainer.metrics()["val_perplexity"], rel=1e-3)]
