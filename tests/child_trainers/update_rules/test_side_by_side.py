"""Members side by side: each trains as it does alone, in float32 and in float64, with XLA and without."""

import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.data.digits import load_digits_data
from automl.child_trainers.data.pydoc_topics import load_pydoc
from automl.child_trainers.images.training import to_device
from automl.child_trainers.outcome import Outcome
from automl.child_trainers.recipes import RuleRecipe, RuleTextRecipe
from automl.child_trainers.task import Assignment, Record
from automl.child_trainers.text.model import LanguageModel
from automl.child_trainers.text.training import to_device as text_to_device
from automl.child_trainers.update_rules.flat_networks import ConvChild, TextChild
from automl.child_trainers.update_rules.grouped_networks import ConvChildren
from automl.child_trainers.update_rules.grouped_text import TextChildren
from automl.child_trainers.update_rules.in_turn import InTurn
from automl.child_trainers.update_rules.population import Member
from automl.child_trainers.update_rules.populations import make_population, member_bytes, num_places
from automl.child_trainers.update_rules.screening import Screen
from automl.child_trainers.update_rules.side_by_side import NARROWEST, SideBySide
from automl.child_trainers.update_rules.training import MetricSpec, RuleTrainer
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.program import encode
from automl.search_spaces.update_rule.spec import UpdateRule

EXTRA = ["drop(g, 0.3) + noise", "drop(drop(g, 0.3), 0.5) * linear_decay", "g + 0.01w"]
TEXTS = [*RULES, *EXTRA]
DIVERGES = "log(abs(g - g))"
STEEP = ("adam", "rmsprop")  # their first step divides a gradient by its own size, so rounding of small ones counts


def member(text, rate=0.05, seed=3, steps=20):
    rule = RULES[text] if text in RULES else UpdateRule.parse(text)
    return Member(encode(rule), rate, seed, steps)


@pytest.fixture(scope="module")
def digits():
    return to_device(load_digits_data().limit(320, 100))


@pytest.fixture(scope="module")
def one_step(digits):
    """An epoch is one step."""
    return ConvChild(digits, 10, 320)


@pytest.fixture(scope="module")
def images(digits):
    return ConvChild(digits, 10, 32)


def text_child(state_reset=0.0, tokens=4000):
    recipe = RuleTextRecipe(
        units=16, vocabulary_size=100, num_train=tokens, num_validation=400, state_reset=state_reset
    )
    text = load_pydoc(level="word", vocabulary_size=100).limit(tokens, 400)
    model = LanguageModel(LSTM(), len(text.vocabulary), 16, recipe.of_language(), seed=0)
    return TextChild(model, text_to_device(text, recipe.batch_size))


@pytest.fixture(scope="module")
def texts():
    return text_child()


def begin(population, members):
    for place, one in enumerate(members):
        population.begin(place, one)
    return list(range(len(members)))


def epochs(population, places, count):
    """The losses of each epoch."""
    return [population.train_epoch(places, [epoch] * len(places)) for epoch in range(count)]


def all_weights(population, place):
    return np.concatenate([part.ravel() for part in population.weights(place).values()])


def flat_weights(population, place):
    """In the population's own precision."""
    return population._weights[place]


def assert_one_step_equals(single, grouped, texts, rate=0.05):
    members = [member(text, rate, seed=3 + index) for index, text in enumerate(texts)]
    alone, together = InTurn(single, len(members)), SideBySide(grouped, len(members))
    for population in (alone, together):
        population.losses = epochs(population, begin(population, members), 1)
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-5)
    for place, text in enumerate(texts):
        tolerance = 1e-3 if text in STEEP else 1e-5
        found, expected = all_weights(together, place), all_weights(alone, place)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=text)


def test_a_step_of_images_is_that_of_members_alone(one_step):
    assert_one_step_equals(one_step, ConvChildren(one_step), TEXTS)


def test_a_step_of_text_is_that_of_members_alone():
    single = text_child(state_reset=0.3, tokens=421)  # one step an epoch
    assert single.steps_per_epoch == 1
    assert_one_step_equals(single, TextChildren(single), TEXTS)


@pytest.mark.parametrize("name", ["images", "text"])
def test_in_double_precision_a_member_does_not_depend_on_the_others(one_step, name):
    single = one_step if name == "images" else text_child(tokens=421)
    grouped = (ConvChildren if name == "images" else TextChildren)(single, "float64")
    texts = [text for text in TEXTS if text not in STEEP]
    members = [member(text, seed=3 + index) for index, text in enumerate(texts)]
    together, alone = (SideBySide(grouped, count, xla=True) for count in (len(members), 1))
    losses = epochs(together, begin(together, members), 1)[0]
    for place in range(0, len(members), 3):
        alone.begin(0, members[place])
        assert alone.train_epoch([0], [0]) == [pytest.approx(losses[place], rel=1e-12)]
        difference = tf.abs(flat_weights(together, place) - flat_weights(alone, 0))
        # Noise is drawn in float32, and XLA may round its logarithm and cosine in another way for another width.
        assert float(tf.reduce_max(difference)) < (2e-9 if "noise" in texts[place] else 1e-10)


@pytest.mark.parametrize("name", ["images", "texts"])
def test_after_an_epoch_the_validation_is_that_of_members_alone(request, name):
    single = request.getfixturevalue(name)
    grouped = (ConvChildren if name == "images" else TextChildren)(single)
    rate = 0.05 if name == "images" else 0.2
    members = [member(text, rate) for text in ("sgd", "momentum", "powersign", EXTRA[0], EXTRA[1])]
    alone, together = InTurn(single, len(members)), SideBySide(grouped, len(members))
    values = []
    for population in (alone, together):
        places = begin(population, members)
        epochs(population, places, 2)
        values.append(population.validate(places))
    tolerance = {"abs": 0.0101} if name == "images" else {"rel": 0.01}  # an image of a hundred
    assert values[1] == pytest.approx(values[0], **tolerance)
    assert min(values[1]) > 0.12 if name == "images" else max(values[1]) < 100


@pytest.mark.parametrize("name", ["images", "texts"])
def test_xla_computes_the_same(request, name):
    single = request.getfixturevalue(name)
    grouped = (ConvChildren if name == "images" else TextChildren)(single)
    members = [member(text) for text in ("sgd", EXTRA[1])]
    plain, compiled = (SideBySide(grouped, 2, xla=xla) for xla in (False, True))
    losses = [epochs(population, begin(population, members), 1)[0] for population in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert compiled.validate([0, 1]) == pytest.approx(plain.validate([0, 1]), rel=0.02, abs=0.0101)


def test_members_may_be_in_different_epochs(images):
    together, alone = SideBySide(ConvChildren(images), 2), SideBySide(ConvChildren(images), 2)
    first, second = member("sgd"), member(EXTRA[1], seed=9)
    alone.begin(0, second)
    expected = [alone.train_epoch([0], [0])[0], alone.train_epoch([0], [1])[0]]
    together.begin(0, first)
    together.train_epoch([0], [0])
    together.begin(1, second)
    found = [together.train_epoch([0, 1], [1, 0])[1], together.train_epoch([0, 1], [2, 1])[1]]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_member_that_diverges_keeps_the_others_from_nothing(images):
    population, alone = (SideBySide(ConvChildren(images), 3) for _ in range(2))
    places = begin(population, [member("sgd"), member(DIVERGES), member("momentum")])
    losses = population.train_epoch(places, [0, 0, 0])
    assert not np.isfinite(losses[1])
    begin(alone, [member("sgd"), member("momentum")])
    assert alone.train_epoch([0, 1], [0, 0]) == pytest.approx([losses[0], losses[2]], rel=1e-4)
    assert np.isnan(population.validate([1])[0])


def test_few_members_use_a_narrower_program_and_leave_the_other_places_alone(images):
    population = SideBySide(ConvChildren(images), 4 * NARROWEST)
    places = begin(population, [member("sgd", seed=place) for place in range(3)])
    kept = all_weights(population, 1)
    losses = population.train_epoch([0, 2], [0, 0])
    assert population.traces == 1 and population.train_epoch([0], [1])[0] < losses[0]
    assert population.traces == 1  # the narrow program again
    np.testing.assert_array_equal(all_weights(population, 1), kept)
    population.compile()
    assert population.traces == 3  # and both programs of all places
    assert len(population.validate(places)) == 3
    assert population.steps_done() == 3 * images.steps_per_epoch


def trainer(population, network, rates=(0.01, 0.1)):
    recipe = RuleRecipe(epochs=2, rates=rates, screen_sample=0.0)
    return RuleTrainer(network, population, MetricSpec("val_accuracy", True, 0.0, 0.145, lambda value: value), recipe)


def assignments(texts, seed=3):
    return [Assignment(UpdateRule.parse(text), seed, Record()) for text in texts]


def test_rules_side_by_side_are_judged_as_rules_in_turn(images):
    texts = ["g", "1", "exp(exp(2)) * g / 0.0001w", "adam", "g + drop(m, 0.3)"]
    made = [InTurn(images, 10), SideBySide(ConvChildren(images), 4)]  # the places of two rules
    found = [dict(trainer(population, images).train(assignments(texts), lambda: ())) for population in made]
    for index, text in enumerate(texts):
        expected, outcome = found[0][index], found[1][index]
        assert isinstance(outcome, Outcome) and outcome.ending == expected.ending, text
        assert outcome.reward == pytest.approx(expected.reward, abs=0.0501), text


def test_a_place_that_becomes_free_is_used_for_more_rules(images):
    population, queue = SideBySide(ConvChildren(images), 4), [["momentum"], ["1"], ["sign(m)"]]
    trained = population.train_epoch
    widths = []

    def counted(places, numbers):
        widths.append(len(places))
        return trained(places, numbers)

    population.train_epoch = counted
    found = dict(
        trainer(population, images).train(assignments(["g"]), lambda: assignments(queue.pop(0)) if queue else [])
    )
    assert sorted(found) == [0, 1, 2, 3] and not queue
    assert [found[index].ending for index in (0, 2)] == [None, "screened"]
    assert max(widths) == 4 and len(widths) < 3 * 3  # epochs of rules one after the other


def test_a_population_in_turn_asks_for_no_more(images):
    def more():
        raise AssertionError("Other workers train them.")

    assert len(dict(trainer(InTurn(images, 2), images).train(assignments(["g"]), more))) == 1


def test_the_screen_of_several_rules_is_that_of_each():
    texts = ["g", "1", "adam", "noise", "0.1w", "g + drop(m, 0.3)", "clip(g, 1e-5)", "-g", "sign(m)", "drop(g, 0.5)"]
    programs, rates = [encode(UpdateRule.parse(text)) for text in texts], (1e-5, 1e-3, 0.1, 10.0)
    seeds = list(range(len(texts)))
    alone, together = (Screen(rates, together=count).passes(programs, seeds) for count in (1, 4))
    assert together == alone and set(alone) == {True, False}


def test_places_are_as_many_as_fit_into_half_of_the_memory(images):
    network = ConvChildren(images)
    assert num_places(network, 28, None) == 28
    assert num_places(network, 28, 2 * 50 * member_bytes(network)) == 50
    assert num_places(network, 28, 10**12) == 128
    assert num_places(network, 28, 1000) == 1


def test_a_processor_trains_in_turn(images):
    assert isinstance(make_population(ConvChildren(images), 28, xla=True), InTurn)
