"""Regularized evolution: who is a parent, and what a mutation changes."""

from collections import Counter

import numpy as np
import pytest

from automl.controllers.base import Draw, PendingChild, Result, ResultState
from automl.controllers.evolution import PRESETS, Evolution, mutated
from automl.controllers.keyed import stream
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.numeric import Integer
from automl.search_spaces.space import Space

NUM = 400


def digits():
    found = []
    for index in range(4):
        found.append((yield Choice(f"digit{index}", tuple(range(5)))))
    return found


def branches():
    """The parts of both families have one name, and other options."""
    parts = []
    if (yield Choice("family", ("few", "many"))) == "few":
        parts.append((yield Choice("part", ("a", "b"), kind="two")))
    else:
        parts.append((yield Choice("part", tuple(range(100)), kind="hundred")))
    parts.append((yield Choice("shared", tuple(range(50)))))
    return parts


def linked():
    found = []
    for index in range(4):
        found.append((yield Links(f"inputs{index}", index, kind="inputs")))
    return found


def told(tokens, rewards, states=None):
    states = states or [ResultState.TRAINED] * len(rewards)
    return [
        Result(number, tuple(one), (), reward, state)
        for number, (one, reward, state) in enumerate(zip(tokens, rewards, states, strict=True))
    ]


def mutants(space, parent, *, num=NUM, given=None):
    return [
        mutated(space, Draw(number, given=given or {}), parent, stream(0, number, 0)).tokens for number in range(num)
    ]


def differences(one, other):
    return [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]


def test_a_mutation_changes_one_decision_and_every_one_alike_often():
    parent = (0, 1, 2, 3)
    changed = [differences(child, parent) for child in mutants(Space(digits), parent)]
    assert all(len(places) == 1 for places in changed)
    counts = Counter(places[0] for places in changed)
    # 400 draws, each place with probability 1/4: mean 100, standard deviation 8.7; five of them are 43.
    assert counts.keys() == {0, 1, 2, 3} and all(57 < count < 143 for count in counts.values())
    assert {child[1] for child in mutants(Space(digits), parent)} == {0, 1, 2, 3, 4}


def test_children_are_drawn_uniformly_until_the_population_is_full():
    controller = Evolution(Space(digits), seed=0, population=4, sample=4)
    fresh = controller.ask([Draw(number) for number in range(20)])
    controller.tell(told([(0, 0, 0, 0)] * 3, [1.0, 1.0, 1.0]))
    assert controller.ask([Draw(number) for number in range(20)]) == fresh
    controller.tell(told([(0, 0, 0, 0)], [1.0]))
    assert all(len(differences(one.tokens, (0, 0, 0, 0))) == 1 for one in controller.ask(list(map(Draw, range(20)))))


def test_the_parent_is_the_best_of_the_sample():
    controller = Evolution(Space(digits), seed=0, population=5, sample=5)
    controller.tell(told([(index,) * 4 for index in range(5)], [0.1, 0.5, 0.3, 0.4, 0.2]))
    drawn = controller.ask([Draw(number) for number in range(NUM)])
    parents = Counter(Counter(proposal.tokens).most_common(1)[0][0] for proposal in drawn)  # three digits are left
    # Of five draws with replacement, the best is the best member with probability 1 - 0.8 ** 5 = 0.67: 269 of 400,
    # standard deviation 9.4; and the second with 0.8 ** 5 - 0.6 ** 5 = 0.25: 100, standard deviation 8.7.
    assert 222 < parents[1] < 316 and 57 < parents[3] < 143
    assert parents[3] > parents[2] > parents[0] + parents[4] - 10


def test_the_oldest_leave_the_population_however_good_they_are():
    controller = Evolution(Space(digits), seed=0, population=2, sample=2)
    controller.tell(told([(0, 0, 0, 0), (4, 4, 4, 4), (4, 4, 4, 3)], [9.0, 0.1, 0.2]))
    for proposal in controller.ask([Draw(number) for number in range(50)]):
        assert len(differences(proposal.tokens, (4, 4, 4, 4))) <= 2


def test_failed_children_are_never_parents_and_fill_no_population():
    controller = Evolution(Space(digits), seed=0, population=2, sample=2)
    states = [ResultState.TRAINED, ResultState.FAILED, ResultState.FAILED]
    fresh = controller.ask(list(map(Draw, range(20))))
    assert controller.tell(told([(4, 4, 4, 4), (0, 0, 0, 0), (1, 1, 1, 1)], [0.1, 5.0, 5.0], states)) == {
        "population": 1
    }
    assert controller.ask(list(map(Draw, range(20)))) == fresh
    controller.tell(told([(4, 4, 4, 3), (0, 0, 0, 0)], [0.1, 5.0], states[:2]))
    assert all(sum(one.tokens) >= 11 for one in controller.ask(list(map(Draw, range(50)))))


def test_another_attempt_is_another_mutation_of_another_parent():
    controller = Evolution(Space(digits), seed=0, population=6, sample=1)
    controller.tell(told([(index % 5,) * 4 for index in range(6)], [0.5] * 6))
    assert len({one.tokens for one in controller.ask([Draw(0, attempt) for attempt in range(20)])}) > 10


def test_children_in_flight_change_nothing():
    controller = Evolution(Space(digits), seed=0, population=2, sample=2)
    controller.tell(told([(1, 1, 1, 1), (2, 2, 2, 2)], [0.5, 0.6]))
    assert controller.ask([Draw(7)], [PendingChild(6, (0, 0, 0, 0))]) == controller.ask([Draw(7)])


def test_an_ordered_decision_takes_a_neighbour_half_of_the_time():
    space = Space(lambda: (yield Integer("units", 0, 100)))
    distances = [abs(child[0] - 50) for child in mutants(space, (50,))]
    near = sum(distance == 1 for distance in distances)
    # Half of the draws, and 2 of 100 others of the rest: 0.51 of 400 is 204, standard deviation 10.
    assert 154 < near < 254 and 0 not in distances and max(distances) > 40
    ends = {child[0] for child in mutants(space, (100,)) if child[0] > 97}
    assert 99 in ends and 100 not in ends


def test_a_neighbour_in_order_is_one_among_the_allowed_options_whatever_their_tokens():
    shuffled = tuple(np.random.default_rng(0).permutation(9).tolist())
    rule = parse_rule("units=0,3,4,8", fix=False)
    space = Space(lambda: (yield Integer("units", 0, 8, options=shuffled)), Narrowing((rule,)))
    children = Counter(shuffled[child[0]] for child in mutants(space, (shuffled.index(4),)))
    # A neighbour half of the time, 3 or 8, else one of 0, 3 and 8: 0 in a sixth, 3 and 8 in five twelfths.
    assert children.keys() == {0, 3, 8} and children[0] < 110 < min(children[3], children[8])


def test_a_mutation_of_links_turns_one_bit():
    parent = (1, 0, 1, 1, 1, 0)
    changed = [differences(child, parent) for child in mutants(Space(linked), parent)]
    assert all(len(places) == 1 for places in changed) and {place for (place,) in changed} == set(range(6))


def test_what_depends_on_the_changed_decision_is_drawn_and_the_rest_is_kept():
    space = Space(branches)
    children = [child for child in mutants(space, (0, 1, 33)) if child[0] == 1]
    assert len(children) > 80 and all(child[2] == 33 for child in children)
    assert len({child[1] for child in children}) > 40  # `part` has other options there, so token 1 is not kept
    assert {child[1] for child in mutants(space, (1, 77, 33)) if child[0] == 0} == {0, 1}


def test_a_mutation_stays_within_the_narrowing_and_what_is_given():
    rules = (parse_rule("digit0=3", fix=True), parse_rule("digit1=0,2", fix=False))
    space = Space(digits, Narrowing(rules))
    for child in mutants(space, (1, 4, 0, 0), given={"digit3": (2,)}):
        assert child[0] == 3 and child[1] in (0, 2) and child[3] == 2
        # The parent's digits 0 and 1 are not allowed: they are drawn, and then one of digits 1 and 2 is changed.
    everything = {f"digit{index}": (0,) for index in range(4)}
    assert mutants(Space(digits), (1, 1, 1, 1), num=3, given=everything) == [(0, 0, 0, 0)] * 3


def test_it_is_rebuilt_by_replay():
    controller, again = (Evolution(Space(digits), seed=3, population=3, sample=2) for _ in range(2))
    batches = [told([(a, b, 0, 0) for b in range(3)], [0.1 * a, 0.2, 0.3]) for a in range(3)]
    for batch in batches:
        controller.tell(batch)
    assert controller.state() is None
    again.replay(batches)
    draws = [Draw(number, attempt) for number in range(9, 14) for attempt in range(3)]
    assert again.ask(draws) == controller.ask(draws)


def test_it_finds_the_best_child_sooner_than_random_search():
    def best_after(population, sample):
        found = []
        for seed in range(10):
            controller = Evolution(Space(digits), seed=seed, population=population, sample=sample)
            best = 0.0
            for batch in range(15):
                draws = [Draw(8 * batch + index) for index in range(8)]
                proposals = controller.ask(draws)
                results = [
                    Result(draw.number, one.tokens, (), -float(sum(abs(token - 3) for token in one.tokens)))
                    for draw, one in zip(draws, proposals, strict=True)
                ]
                controller.tell(results)
                best = max([best, *(16 + result.reward for result in results)])
            found.append(best)
        return np.mean(found)

    # The best of 625 children has 16. Random search has seen less than a fifth of them; a full population of 1,000
    # never comes.
    assert best_after(20, 10) == 16 > best_after(1000, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 0}, "controller.population is 0; it must be a whole number, 1 or more."),
        ({"sample": 2.5}, "controller.sample is 2.5; it must be a whole number, 1 or more."),
        ({"sample": True}, "controller.sample is True; it must be a whole number, 1 or more."),
        (
            {"population": 5, "sample": 9},
            "controller.sample is 9 and controller.population is 5; sample must not be larger.",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        Evolution(Space(digits), seed=0, **options)
    assert str(error.value) == message


def test_the_paper_s_preset():
    assert PRESETS["paper"] == {"population": 100, "sample": 25}
    assert Evolution.options() == ("population", "sample")
