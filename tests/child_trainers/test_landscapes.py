"""Synthetic landscapes: their values are pure functions, and their optimum is known."""

import functools
import itertools

import numpy as np
import pytest

from automl.child_trainers.landscapes import pairwise
from automl.child_trainers.landscapes.functions import LANDSCAPES, make_landscape
from automl.child_trainers.landscapes.pairwise import PairwiseSum, random_pairwise
from automl.child_trainers.landscapes.streams import Stream
from automl.child_trainers.landscapes.task import LandscapeRecipe, SyntheticLandscape
from automl.child_trainers.outcome import Goal
from automl.child_trainers.task import Record
from automl.search_spaces.decisions import Choice
from automl.search_spaces.landscape.space import KINDS, landscape
from automl.search_spaces.space import Space
from automl.testing.spaces import sample

# Values of the first random child of instance 0, so that a change of a landscape is noticed: figures of different
# versions would not compare.
FIRST = {
    "links": -0.56713897226,
    "conditional": 1.111448121778,
    "forty": 0.974665736832,
    "noisy": 1.26162627146,
    "numbers": 0.01129976878,
}


def space_of(kind):
    return Space(functools.partial(landscape, kind=kind))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_every_kind_has_a_landscape():
    assert LANDSCAPES.keys() == KINDS.keys()
    with pytest.raises(ValueError, match="There is no landscape called 'fourty'; there is forty"):
        space_of("fourty").begin()


def test_values_stay_what_they_are(kind):
    spec = sample(space_of(kind), 0).spec
    assert make_landscape(kind, 0).value(spec.values) == pytest.approx(FIRST[kind], rel=1e-9)


def test_a_value_is_a_function_of_the_child_and_the_instance(kind):
    specs = [sample(space_of(kind), seed).spec for seed in range(5)]
    first, again, other = LANDSCAPES[kind](7), LANDSCAPES[kind](7), LANDSCAPES[kind](8)
    values = [first.value(spec.values) for spec in specs]
    assert values == [again.value(spec.values) for spec in specs]
    assert values != [other.value(spec.values) for spec in specs]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("instance", [0, 1])
def test_no_child_is_above_the_optimum(kind, instance):
    made = make_landscape(kind, instance)
    optimum, exact = made.optimum
    assert exact
    found = [climbed(space_of(kind), made, seed) for seed in range(2)]
    assert 0.6 * optimum < max(found) <= optimum + 1e-9


def climbed(space, made, seed):
    """The best value of a hill climb that changes one answer at a time, through the space's own decisions."""
    generator = np.random.default_rng(seed)
    best = sample(space, seed)
    for _ in range(800):
        changed = best.decisions[generator.integers(len(best.decisions))].name
        walk = space.begin()
        while (decision := walk.decision) is not None:
            tokens = best.answers.get(decision.name)
            if tokens is None or decision.name == changed:
                options = len(decision.options) if isinstance(decision, Choice) else 2
                tokens = tuple(generator.integers(0, options, decision.num_tokens).tolist())
            walk.answer(tokens)
        if made.value(walk.spec.values) >= made.value(best.spec.values):
            best = walk
    return made.value(best.spec.values)


def test_the_links_optimum_is_that_of_all_children_of_given_operations():
    made = make_landscape("links", 3)
    best = -np.inf
    operations = {f"layer{index}/operation": "b" for index in range(7)}
    chosen = [[] for _ in range(7)]
    for layer in range(7):  # layers do not depend on each other's links
        subsets = itertools.chain.from_iterable(itertools.combinations(range(layer), n) for n in range(layer + 1))
        scored = []
        for subset in subsets:
            inputs = {f"layer{index}/inputs": chosen[index] for index in range(7)}
            inputs[f"layer{layer}/inputs"] = list(subset)
            scored.append((made.value({**operations, **inputs}), list(subset)))
        best, chosen[layer] = max(scored)
    assert best <= made.optimum[0] + 1e-9


def small(seed):
    return random_pairwise(Stream(seed), 6, 3, per_choice=2, strength=1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_maximum_of_a_pairwise_sum(seed, monkeypatch):
    made = small(seed)
    brute = max(made.value(list(x)) for x in itertools.product(range(3), repeat=6))
    assert made.maximum() == (pytest.approx(brute), True)
    monkeypatch.setattr(pairwise, "LARGEST_FACTOR", 3)
    assert made.maximum() == (pytest.approx(brute), False)


def test_a_pairwise_sum_of_parts_that_do_not_touch():
    made = PairwiseSum(np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 0.5]]), {(0, 1): np.array([[0.0, 0.0], [-3.0, 0.0]])})
    assert made.maximum() == (2.5, True)


def test_streams_are_the_same_everywhere_and_have_the_right_moments():
    assert Stream(1, 2).uniform(2).tolist() == pytest.approx([0.448415143332272, 0.430881987544338], rel=1e-12)
    drawn = Stream(5).normal(20_000)
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.03
    assert {Stream(index).below(3) for index in range(50)} == {0, 1, 2}


def test_noise_is_a_function_of_the_child_s_seed():
    task, spec = SyntheticLandscape("synthetic", LandscapeRecipe()), sample(space_of("noisy"), 1).spec

    def reward(seed, task=task):
        outcome = task.evaluate(spec, seed=seed, report=Record())
        assert outcome.metrics["value"] == make_landscape("noisy", 0).value(spec.values)
        return outcome.reward

    rewards = [reward(seed) for seed in range(200)]
    assert rewards == [reward(seed) for seed in range(200)]
    assert np.std(rewards) == pytest.approx(0.5, rel=0.2)
    assert np.mean(rewards) == pytest.approx(make_landscape("noisy", 0).value(spec.values), abs=0.15)
    silent = SyntheticLandscape("synthetic", LandscapeRecipe(noise=0))
    assert reward(3, silent) == make_landscape("noisy", 0).value(spec.values)


def test_other_landscapes_have_no_noise_unless_it_is_asked_for():
    spec = sample(space_of("numbers"), 1).spec
    for noise, equal in ((None, True), (0.3, False)):
        task = SyntheticLandscape("synthetic", LandscapeRecipe(noise=noise))
        outcome = task.evaluate(spec, seed=1, report=Record())
        assert (outcome.reward == outcome.metrics["value"]) is equal
    assert task.optimum(spec) == make_landscape("numbers", 0).optimum[0]
    assert task.optimum({}) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"instance": -1}, "task.instance is -1; it must be a whole number, 0 or more"),
        ({"instance": 1.5}, "task.instance is 1.5"),
        ({"noise": -1}, "task.noise is -1; it must be a number, 0 or more, or null"),
        ({"noise": "much"}, "task.noise is 'much'"),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LandscapeRecipe(**options)


def test_other_specs_and_goals_are_refused():
    with pytest.raises(ValueError, match="and this space makes dict; choose the space landscape, or another task"):
        SyntheticLandscape("synthetic", LandscapeRecipe()).check({})
    with pytest.raises(ValueError, match="is its value; drop --minimize value"):
        SyntheticLandscape("synthetic", LandscapeRecipe(), goal=Goal("value", minimize=True)).check_goal()
