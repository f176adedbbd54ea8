"""From draws to children: no repeats, no child over a limit, equal draws alike, and an end when none is left."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter

import pytest

from automl import proposer as proposing
from automl.controllers.base import Controller, ControllerState, Cost, Draw, PendingChild, Proposal
from automl.controllers.keyed import child_seed, stream
from automl.controllers.random_search import RandomSearch
from automl.db.records import Origin, Request
from automl.proposer import MAX_ATTEMPTS, Limits, Proposer
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.recorded import Catalogue
from automl.search_spaces.space import Space

SEED = 5


def digits_space():
    """27 children."""
    digits = []
    for index in range(3):
        digits.append((yield Choice(f"digit{index}", (0, 1, 2), kind=f"digit{index}")))
    return digits


def graph_space():
    """Eight graphs of three layers."""
    layers = []
    for index in range(3):
        layers.append((yield Links(f"layer{index}", count=index, kind="layer")))
    return layers


def tree_space():
    """Later decisions depend on earlier answers: 2 + 3 children."""
    if (yield Choice("kind", ("small", "large"))) == "small":
        return ["small", (yield Choice("small", (1, 2)))]
    return ["large", (yield Choice("large", (1, 2, 3)))]


class Scripted(Controller):
    """Always draws the same child, changed only by given answers. A table has the log-probability of every token."""

    def __init__(self, space, *, drawn, log_probs=None):
        super().__init__(space, seed=SEED)
        self._drawn = drawn
        self._log_probs = log_probs or {}
        self.asked = []

    def propose(self, draws, pending):
        self.asked += draws
        return [self._draw(draw) for draw in draws]

    def _draw(self, draw):
        walk = self.space.walk(draw.number)
        log_probs = []
        while (decision := walk.decision) is not None:
            tokens = draw.answer(decision) or self._usual(decision)
            forced = decision.forced
            log_prob = self._log_probs.get((decision.name, tokens), -1.0)
            log_probs += [None if bit is not None else log_prob for bit in forced]
            walk.answer(tokens)
        return Proposal(walk.tokens, tuple(log_probs))

    def _usual(self, decision):
        usual = self._drawn.get(decision.name, (0,) * decision.num_tokens)
        return tuple(token if forced is None else forced for token, forced in zip(usual, decision.forced, strict=True))

    def learn(self, results):
        return {}

    def state(self):
        return ControllerState({}, {})

    def restore(self, state):
        pass


def proposer_of(space, controller, *, seen=None, refused=None, limits=None, cost=None, **of_task):
    return Proposer(
        space,
        controller,
        cost or (lambda spec: Cost(None, None)),
        limits or Limits(),
        seed=SEED,
        seen=set() if seen is None else seen,
        refused=refused or {},
        catalogue=Catalogue([]),
        **of_task,
    )


def random_proposer(function=digits_space, *, rules=(), schedule=None, **options):
    space = Space(function, Narrowing(tuple(parse_rule(rule, fix=True) for rule in rules)), schedule)
    return proposer_of(space, RandomSearch(space, seed=SEED), **options)


def scripted_proposer(function=digits_space, *, rules=(), log_probs=None, seen=None, **drawn):
    space = Space(function, Narrowing(tuple(parse_rule(rule, fix=True) for rule in rules)))
    controller = Scripted(space, drawn=drawn, log_probs=log_probs)
    return proposer_of(space, controller, seen=seen), controller


def batches(proposer, sizes, first=0):
    """The children of successive batches."""
    children, number = [], first
    for batch, size in enumerate(sizes):
        children += proposer.propose(range(number, number + size), batch=batch, policy_step=batch)
        number += size
    return children


def tokens_of(children):
    return [child.tokens for child in children]


# Draws by (seed, number, attempt)


def test_a_child_is_determined_by_its_number_and_attempt():
    for child in batches(random_proposer(), [4, 4, 4]):
        assert child.origin == Origin.POLICY
        uniforms = stream(SEED, child.number, child.tries)
        assert child.tokens == tuple(int(uniforms.random() * 3) for _ in range(3))
        assert child.seed == child_seed(SEED, child.number)
        assert child.log_probs == (-math.log(3),) * 3
        assert child.spec == list(child.tokens)


def test_the_children_do_not_depend_on_how_many_are_drawn_together(monkeypatch):
    """Attempts are drawn together with the next ones, or one after the other."""
    results = []
    for ahead in (1, 2, 3, 8, 40):
        monkeypatch.setattr(proposing, "DRAWS_AT_ONCE", ahead)
        proposer = random_proposer()
        results.append((batches(proposer, [4] * 6), dict(proposer.refused)))
    assert all(result == results[0] for result in results)
    children, refused = results[0]
    assert refused["repeat"] > 5 and any(child.tries > 1 for child in children)


def test_no_child_is_proposed_twice():
    children = batches(random_proposer(), [5] * 5)
    assert len(set(tokens_of(children))) == len({child.canonical_hash for child in children}) == 25


def test_a_new_proposer_with_the_seen_children_continues_as_the_old_one():
    whole = batches(random_proposer(), [4] * 6)
    begun = random_proposer()
    first = batches(begun, [4] * 3)
    resumed = random_proposer(seen={child.canonical_hash for child in first}, refused=dict(begun.refused))
    rest = [
        child
        for batch in range(3, 6)
        for child in resumed.propose(range(4 * batch, 4 * batch + 4), batch=batch, policy_step=batch)
    ]
    assert first + rest == whole


def test_refusals_are_counted_across_proposers():
    begun = random_proposer()
    batches(begun, [4] * 5)
    resumed = random_proposer(refused={"repeat": 100})
    batches(resumed, [4] * 5)
    assert resumed.refused["repeat"] == begun.refused["repeat"] + 100 > 100


# Limits


def test_nothing_over_a_limit_is_proposed_and_refusals_are_counted_by_reason():
    def cost(spec):
        return Cost(params=sum(spec), flops=10 * spec[0])

    proposer = random_proposer(cost=cost, limits=Limits(params=4, flops=10))
    children = batches(proposer, [4] * 4)
    assert all(child.params == sum(child.spec) <= 4 and child.flops == 10 * child.spec[0] <= 10 for child in children)
    assert proposer.refused["max_params"] > 0 and proposer.refused["max_flops"] > 0
    few = random_proposer(cost=cost, limits=Limits(params=0))
    assert tokens_of(batches(few, [4])) == [(0, 0, 0)]


def test_neighbours_keep_the_limits_too():
    proposer = proposer_of(
        Space(digits_space),
        Scripted(Space(digits_space), drawn={}),
        cost=lambda spec: Cost(sum(spec), None),
        limits=Limits(params=1),
    )
    assert set(tokens_of(batches(proposer, [4]))) == {(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}


# Neighbours


def test_after_twenty_attempts_the_most_probable_change_of_one_decision_is_taken():
    log_probs = {("digit1", (2,)): -0.1, ("digit2", (1,)): -0.2, ("digit0", (2,)): -5.0}
    proposer, controller = scripted_proposer(digit0=(0,), digit1=(0,), digit2=(0,), log_probs=log_probs)
    first, second, third = batches(proposer, [1, 1, 1])
    assert (first.tokens, first.origin, first.tries) == ((0, 0, 0), Origin.POLICY, 0)
    assert (second.tokens, second.origin, second.tries) == ((0, 2, 0), Origin.NEIGHBOUR, MAX_ATTEMPTS)
    assert (third.tokens, third.origin) == ((0, 0, 1), Origin.NEIGHBOUR)
    assert second.log_probs == (-1.0, -0.1, -1.0)
    attempts = sorted({draw.attempt for draw in controller.asked if draw.number == 1 and not draw.given})
    assert attempts == list(range(MAX_ATTEMPTS))
    assert proposer.refused["repeat"] == 2 * MAX_ATTEMPTS  # neighbours that were only examined do not count


def test_neighbours_change_one_decision_until_none_is_left_then_two():
    proposer, _ = scripted_proposer(digit0=(0,), digit1=(0,), digit2=(0,))
    tokens = tokens_of(batches(proposer, [1] * 27))
    changed = [sum(token != 0 for token in child) for child in tokens]
    assert changed == [0] + [1] * 6 + [2] * 12 + [3] * 8  # the last by enumeration
    assert len(set(tokens)) == 27


def test_equally_probable_neighbours_do_not_all_change_the_first_decision():
    firsts = set()
    for number in range(1, 12):
        proposer, _ = scripted_proposer(digit0=(0,), digit1=(0,), digit2=(0,))
        batches(proposer, [1], first=0)
        (child,) = proposer.propose([number], batch=1, policy_step=1)
        firsts.add(next(index for index, token in enumerate(child.tokens) if token))
    assert firsts == {0, 1, 2}


def test_a_neighbour_of_links_turns_one_bit():
    proposer, _ = scripted_proposer(graph_space)
    tokens = tokens_of(batches(proposer, [1] * 8))
    assert [sum(child) for child in tokens] == [0, 1, 1, 1, 2, 2, 2, 3]
    assert set(tokens) == set(itertools.product((0, 1), repeat=3))


def test_forced_decisions_are_never_changed():
    proposer, _ = scripted_proposer(rules=["digit1=2"], digit0=(0,), digit2=(0,))
    children = batches(proposer, [1] * 12)
    assert len(children) == 9
    assert all(child.tokens[1] == 2 and child.log_probs[1] is None for child in children)
    proposer, _ = scripted_proposer(graph_space, rules=["layer2=0"])
    children = batches(proposer, [1] * 5)
    assert {child.tokens for child in children} == {(0, 1, 0), (1, 1, 0)}


def test_decisions_that_depend_on_a_changed_one_are_drawn_again():
    proposer, _ = scripted_proposer(tree_space, kind=(0,), small=(0,), large=(2,))
    specs = [child.spec for child in batches(proposer, [1] * 5)]
    assert specs[0] == ["small", 1]
    assert ["large", 3] in specs[1:3] and ["small", 2] in specs[1:3]  # drawn as the controller would
    assert sorted(specs) == [["large", 1], ["large", 2], ["large", 3], ["small", 1], ["small", 2]]


def test_neighbours_are_the_same_after_a_restart():
    whole, _ = scripted_proposer(digit0=(1,), digit1=(1,), digit2=(1,))
    expected = batches(whole, [3] * 4)
    begun, _ = scripted_proposer(digit0=(1,), digit1=(1,), digit2=(1,))
    first = batches(begun, [3] * 2)
    resumed, _ = scripted_proposer(
        digit0=(1,), digit1=(1,), digit2=(1,), seen={child.canonical_hash for child in first}
    )
    rest = [
        child
        for batch in (2, 3)
        for child in resumed.propose(range(3 * batch, 3 * batch + 3), batch=batch, policy_step=batch)
    ]
    assert first + rest == expected


# Requests


def requests_of(*tokens):
    return [Request(100 + index, 1, list(given), 0.0, None, None) for index, given in enumerate(tokens)]


def fill(proposer, requests, numbers, batch=0):
    """Fills a batch as the loop does: returns the answers and the whole batch."""
    answers = proposer.answer(requests, numbers, batch=batch, policy_step=batch)
    made = [child for _, _, child in answers if child is not None]
    children = proposer.propose(numbers, batch=batch, policy_step=batch, made=made)
    return {request: answer for request, answer, _ in answers}, children


def test_a_child_that_the_task_does_not_admit_is_drawn_again():
    proposer = random_proposer(admits=lambda spec: sum(spec) % 2 == 0)
    children = batches(proposer, [8])
    assert len(children) == 8 and all(sum(child.tokens) % 2 == 0 for child in children)
    assert proposer.refused["invalid"] > 0
    assert sum(proposer.refused.values()) == sum(child.tries for child in children)


def test_the_space_is_exhausted_when_all_that_the_task_admits_was_proposed():
    proposer = random_proposer(admits=lambda spec: sum(spec) == 1)
    assert sorted(tokens_of(batches(proposer, [8]))) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_the_children_that_a_task_lists_are_found_in_a_large_space():
    """A million children, of which three are admitted; one of those listed is none of the space."""

    def large():
        digits = []
        for index in range(6):
            digits.append((yield Choice(f"digit{index}", tuple(range(10)))))
        return digits

    listed = [{f"digit{index}": value for index in range(6)} for value in (7, 8, 9, 10)]
    proposer = random_proposer(large, admits=lambda spec: len(set(spec)) == 1 and spec[0] > 6, listed=lambda: listed)
    assert sorted(tokens_of(batches(proposer, [4]))) == [(7,) * 6, (8,) * 6, (9,) * 6]


def test_a_request_that_the_task_does_not_admit_is_refused():
    proposer = random_proposer(admits=lambda spec: sum(spec) == 1)
    answers, _ = fill(proposer, requests_of((1, 1, 0)), [0])
    assert answers == {100: "the task of the search does not admit it"}


def test_a_request_becomes_the_first_child_of_the_next_batch():
    proposer = random_proposer()
    answers, children = fill(proposer, requests_of((2, 1, 0)), range(8, 12), batch=2)
    assert answers == {100: 8}
    assert [child.number for child in children] == [8, 9, 10, 11]
    first = children[0]
    assert (first.tokens, first.origin, first.tries) == ((2, 1, 0), Origin.USER, 0)
    assert (first.batch, first.policy_step, first.seed, first.spec) == (2, 2, child_seed(SEED, 8), [2, 1, 0])
    assert first.log_probs == (-math.log(3),) * 3
    assert {child.origin for child in children[1:]} == {Origin.POLICY}
    without = random_proposer(seen={first.canonical_hash})
    assert children[1:] == without.propose(range(8, 12), batch=2, policy_step=2)[1:]  # equal draws for equal numbers


def test_a_request_has_the_log_probabilities_of_the_policy():
    log_probs = {("digit0", (2,)): -4.0, ("digit2", (1,)): -0.25}
    proposer, controller = scripted_proposer(rules=["digit1=1"], log_probs=log_probs)
    (_, _, child), *_ = proposer.answer(requests_of((2, 1, 1)), [0], batch=0, policy_step=0)
    assert child.log_probs == (-4.0, None, -0.25)
    assert [draw.attempt for draw in controller.asked] == [0]  # a first draw


def test_a_request_costs_what_its_child_costs():
    proposer = random_proposer(cost=lambda spec: Cost(sum(spec), 7), limits=Limits(params=3))
    (_, _, child), *_ = proposer.answer(requests_of((1, 1, 1)), [0], batch=0, policy_step=0)
    assert (child.params, child.flops) == (3, 7)


OUTSIDE = "it is outside what --fix, --only or the schedule leaves"
THERE = "the search has it already"
OVER = "it is over a limit of the search"


@pytest.mark.parametrize(
    ("options", "tokens", "reason"),
    [
        ({}, (0, 1), "The tokens end before 'digit2': the space asks for more than the 2 given."),
        ({}, (0, 1, 2, 0), "1 of 4 tokens are left over after the last decision."),
        ({}, (0, 3, 0), "Token 3 is out of range for 'digit1': it has 3 options (0 to 2)."),
        ({}, (0, -1, 0), "Token -1 is out of range for 'digit1': it has 3 options (0 to 2)."),
        ({"rules": ["digit1=2"]}, (0, 1, 0), OUTSIDE),
        ({"schedule": lambda number: {"digit0": number % 3}}, (1, 0, 0), OUTSIDE),
        ({"cost": lambda spec: Cost(sum(spec), None), "limits": Limits(params=5)}, (2, 2, 2), OVER),
        ({"cost": lambda spec: Cost(None, sum(spec)), "limits": Limits(flops=5)}, (2, 2, 2), OVER),
    ],
)
def test_an_impossible_request_is_refused_with_the_reason(options, tokens, reason):
    proposer = random_proposer(**options)
    answers, children = fill(proposer, requests_of(tokens, (0, 2, 0)), range(3, 5))
    assert answers[100].startswith(reason) and answers[101] == 3  # no number is lost
    assert [child.number for child in children] == [3, 4] and children[0].tokens == (0, 2, 0)
    assert tokens not in tokens_of(children)
    reasons = set(proposer.refused)
    assert reasons <= {"repeat", "max_params", "max_flops"}
    assert proposer.refused == random_refusals(options)  # the policy's draws are counted, not the requests


def random_refusals(options):
    proposer = random_proposer(**options)
    fill(proposer, requests_of((0, 2, 0)), range(3, 5))
    return proposer.refused


def test_the_schedule_applies_to_a_request_by_its_number():
    options = {"schedule": lambda number: {"digit0": number % 3}}
    answers, children = fill(random_proposer(**options), requests_of((1, 0, 0)), range(4, 6))
    assert answers == {100: 4} and children[0].log_probs == (None, -math.log(3), -math.log(3))


def test_a_request_for_an_existing_child_is_refused():
    first = random_proposer().propose([0, 1], batch=0, policy_step=0)
    proposer = random_proposer(seen={child.canonical_hash for child in first})
    new = next(tokens for tokens in itertools.product(range(3), repeat=3) if tokens not in tokens_of(first))
    answers, _ = fill(proposer, requests_of(first[1].tokens, new, new), range(2, 4), batch=1)
    assert answers == {100: THERE, 101: 2, 102: THERE}


def test_requested_children_are_not_drawn_again():
    log_probs = {("digit2", (1,)): -0.5}
    proposer, _ = scripted_proposer(log_probs=log_probs)
    _, children = fill(proposer, requests_of((0, 0, 0), (0, 0, 1)), range(3))
    assert tokens_of(children[:2]) == [(0, 0, 0), (0, 0, 1)]
    assert children[2].origin == Origin.NEIGHBOUR and len(set(tokens_of(children))) == 3


def test_more_requests_than_a_batch_has_numbers_are_left_for_later():
    asked = [(0, 0, 1), (0, 0), (0, 0, 2), (0, 1, 0), (9, 9, 9), (0, 1, 1)]
    requests, proposer = requests_of(*asked), random_proposer()
    answers, children = fill(proposer, requests, range(2))
    assert list(answers) == [100, 101, 102] and (answers[100], answers[102]) == (0, 1)
    assert [child.tokens for child in children] == [(0, 0, 1), (0, 0, 2)]
    answers, children = fill(proposer, requests[len(answers) :], range(2, 4), batch=1)
    assert list(answers) == [103, 104, 105] and (answers[103], answers[105]) == (2, 3)
    assert [child.origin for child in children] == [Origin.USER] * 2
    assert fill(proposer, [], range(4, 6))[0] == {}


@pytest.mark.parametrize("make", [random_proposer, lambda **seen: scripted_proposer(**seen)[0]])
def test_an_exhausted_space_drops_no_requested_child(make):
    whole = batches(random_proposer(), [27])
    picks = random.Random(0)
    for _ in range(30):
        left = picks.sample(whole, picks.randint(1, 6))
        asked = [child.tokens for child in picks.sample(left, picks.randint(1, len(left)))]
        size = picks.randint(len(asked), 8)
        proposer = make(seen={child.canonical_hash for child in whole if child not in left})
        answers, children = fill(proposer, requests_of(*asked), range(size))
        assert list(answers.values()) == list(range(len(asked)))
        assert [child.number for child in children] == list(range(min(size, len(left))))
        assert tokens_of(children[: len(asked)]) == asked
        assert {child.tokens for child in children} <= {child.tokens for child in left}
        assert len(set(tokens_of(children))) == len(children)


def test_a_drawn_child_fills_a_gap_in_its_batch_and_a_requested_one_does_not():
    """Number 1 finds no child that number 2 has not drawn, and number 0 is requested."""

    class OneWay(Scripted):
        def _draw(self, draw):
            if draw.number == 2 and not draw.given:
                return Proposal((2, 2, 2), (-1.0,) * 3)
            return super()._draw(draw)

    space, left = Space(digits_space), [(1, 2, 2), (2, 2, 2)]
    seen = {child.canonical_hash for child in batches(random_proposer(), [27]) if child.tokens not in left}
    proposer = proposer_of(space, OneWay(space, drawn={}), seen=seen)
    _, children = fill(proposer, requests_of((1, 2, 2)), range(3))
    assert [(child.number, child.tokens, child.origin) for child in children] == [
        (0, (1, 2, 2), Origin.USER),
        (1, (2, 2, 2), Origin.NEIGHBOUR),
    ]


# The end


@pytest.mark.parametrize("size", [1, 4, 27, 40])
@pytest.mark.parametrize("make", [random_proposer, lambda: scripted_proposer(digit0=(1,), digit1=(1,), digit2=(1,))[0]])
def test_an_exhausted_space_has_no_gap(make, size):
    proposer = make()
    children = batches(proposer, [size] * (27 // size + 2))
    assert [child.number for child in children] == list(range(27))
    assert len(set(tokens_of(children))) == 27
    assert proposer.propose([27, 28], batch=9, policy_step=9) == []


def test_a_batch_that_only_its_last_draw_could_fill_has_no_gap():
    """Number 0 finds no child that number 1 has not taken, so it takes the child of number 1."""

    class OneWay(Scripted):
        def _draw(self, draw):
            if draw.number == 0 and not draw.given:
                return Proposal((0, 0, 0), (-1.0,) * 3)
            if draw.number == 1 and not draw.given:
                return Proposal((2, 2, 2), (-1.0,) * 3)
            return super()._draw(draw)

    space = Space(digits_space)
    everything = batches(random_proposer(), [27])
    seen = {child.canonical_hash for child in everything if child.tokens != (2, 2, 2)}
    proposer = proposer_of(space, OneWay(space, drawn={}), seen=seen)
    (child,) = proposer.propose([0, 1], batch=0, policy_step=0)
    assert (child.number, child.tokens, child.origin) == (0, (2, 2, 2), Origin.NEIGHBOUR)


def test_equal_children_written_differently_are_one():
    @dataclasses.dataclass(frozen=True)
    class Set:
        members: tuple[int, ...]

        def canonical(self):
            return sorted(self.members)

    def sets():
        first = yield Choice("first", (0, 1, 2))
        second = yield Choice("second", (0, 1, 2))
        return Set((first, second))

    children = batches(random_proposer(sets), [9])
    assert len(children) == 6
    assert len({child.canonical_hash for child in children}) == 6


# Sequential controllers


class LeastUsed(RandomSearch):
    """Proposes, for each digit, the one that the fewest children in flight have; a later attempt the next one."""

    sequential = True

    def propose(self, draws, pending):
        (draw,) = draws
        self.shown = [*getattr(self, "shown", []), (draw.number, draw.attempt, [child.number for child in pending])]
        first = Counter(child.tokens[0] for child in pending)
        option = sorted(range(3), key=lambda token: (first[token], token))[draw.attempt % 3]
        return super().propose([Draw(draw.number, draw.attempt, {"digit0": (option,)})], pending)


def test_a_sequential_controller_sees_the_accepted_children_of_its_batch():
    space = Space(digits_space)
    controller = LeastUsed(space, seed=SEED)
    proposer = proposer_of(space, controller)
    proposer.pending = (PendingChild(90, (0, 1, 1)),)
    children = proposer.propose(range(6), batch=0, policy_step=0)
    assert [number for number, _, _ in controller.shown] == sorted(number for number, _, _ in controller.shown)
    assert all(shown == [90, *range(number)] for number, _, shown in controller.shown)
    drawn = [child.tokens[0] for child in children if child.tries == 0]
    assert drawn[:2] == [1, 2]  # 0 is in flight
