"""Mechanisms of the recurrent policy that can be switched off: replay, decaying entropy, embeddings of places."""

import math

import numpy as np
import pytest

from automl.controllers.base import Draw, Result
from automl.controllers.ppo import Ppo
from automl.controllers.reinforce.controller import Reinforce
from automl.controllers.reinforce.entropy import entropy_weight
from automl.controllers.reinforce.replay import MAX_REMEMBERED, Memory
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space


def three():
    found = []
    for index in range(3):
        found.append((yield Choice(f"op{index}", ("p", "q", "r"), kind="op")))
    return found


def made(kind=Reinforce, **settings):
    return kind(Space(three), seed=3, **settings)


def batch(controller, start, rewards):
    """Children of the controller with these rewards, from the number `start` on."""
    draws = [Draw(start + index) for index in range(len(rewards))]
    asked = zip(draws, controller.ask(draws), rewards, strict=True)
    return [Result(draw.number, proposal.tokens, proposal.log_probs, reward) for draw, proposal, reward in asked]


def same(one, other):
    one, other = one.state().arrays, other.state().arrays
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# --- Entropy


def test_the_weight_of_the_entropy_halves_after_each_half_life():
    assert [entropy_weight(0.8, 50, number) for number in (0, 50, 100)] == [0.8, 0.4, 0.2]
    assert entropy_weight(0.8, 0, 10**6) == 0.8


@pytest.mark.parametrize("kind", [Reinforce, Ppo])
def test_the_entropy_counts_less_for_later_children(kind):
    def after(number, **settings):
        controller = made(kind, **settings)
        told = batch(controller, 0, (0.1, 0.9, 0.5))
        controller.tell([Result(number + one.number, one.tokens, one.log_probs, one.reward) for one in told])
        return controller

    decaying = {"entropy": 5.0, "entropy_half_life": 1.0}
    assert same(after(0, **decaying), after(0, entropy=5.0))
    assert not same(after(0, **decaying), after(0))
    late = after(10_000, **decaying)  # 2^-10000 is 0
    assert same(late, after(10_000))
    assert not same(late, after(10_000, entropy=5.0))


# --- Replay


def test_a_memory_draws_past_children_by_number_and_keeps_the_latest():
    memory = Memory(0)
    memory.add([Result(number, (0,), (-1.0,), float(number)) for number in range(MAX_REMEMBERED + 5)])
    memory.add([Result(-1, (0,), (-1.0,), None), Result(-2, (0,), (), 1.0)])  # lost; proposed without log-probabilities
    assert memory.rewards == [float(number) for number in range(5, MAX_REMEMBERED + 5)]
    places = memory.sample(4, 8)
    assert len(set(places)) == 4 and list(places) == sorted(places)
    assert places == memory.sample(4, 8) and places != memory.sample(4, 16)
    assert list(memory.sample(MAX_REMEMBERED, 8)) == list(range(MAX_REMEMBERED))


def told_twice(log_probs, **settings):
    """A controller after a good child, a bad one that is not remembered, and a batch that teaches nothing by itself."""
    controller = made(imitate=0, advantage="reward", **settings)
    controller.tell([Result(0, (1, 1, 1), log_probs, 1.0), Result(1, (2, 2, 2), (), 0.0)])
    controller.tell([Result(number, (0, 0, 0), (-1.0,) * 3, 0.5) for number in (2, 3)])
    return controller


def test_an_update_learns_again_from_past_children_unless_their_ratios_are_clipped():
    drawn = made().ask([Draw(0, given={f"op{index}": (1,) for index in range(3)})])[0].log_probs
    good = Draw(9, given={f"op{index}": (1,) for index in range(3)})
    once, twice = told_twice(drawn), told_twice((-0.1,) * 3, replay=2)  # all ratios below 1
    assert twice.ask([good])[0].log_probs > once.ask([good])[0].log_probs
    assert same(once, told_twice((-9.0,) * 3, replay=2))  # all ratios far above 1, and the advantage is positive
    assert not same(once, twice)


def test_a_resume_replays_the_same_children():
    settings = {"replay": 3, "entropy": 0.5, "entropy_half_life": 20.0}
    whole = made(**settings)
    told = []
    for start in range(0, 24, 4):
        told.append(batch(whole, start, [math.sin(start + index) for index in range(4)]))
        whole.tell(told[-1])
    part, resumed = made(**settings), made(**settings)
    for results in told[:4]:
        part.tell(results)
    resumed.restore(part.state())
    assert resumed.remembers
    resumed.remember(told[:4])
    for results in told[4:]:
        resumed.tell(results)
    assert same(whole, resumed)


# --- Places


@pytest.mark.parametrize("positions", ["input", "output"])
def test_embeddings_of_places_are_learned_and_part_of_the_state(positions):
    def learned(**settings):
        controller = made(imitate=0, **settings)
        for number in range(0, 40, 2):
            controller.tell([Result(number, (0, 1, 2), (), 1.0), Result(number + 1, (1, 2, 0), (), 0.0)])
        return controller

    controller = learned(positions=positions)
    table = f"{positions}_positions"
    assert not np.array_equal(controller.state().arrays[table], made(positions=positions).state().arrays[table])
    again = made(imitate=0, positions=positions)
    again.restore(controller.state())
    assert again.ask([Draw(7)]) == controller.ask([Draw(7)]) and same(again, controller)
    assert not any("positions" in name for name in learned().state().arrays)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"positions": "both"}, "controller.positions is 'both'; it is 'none', 'input' or 'output'."),
        ({"replay": -1}, "controller.replay is -1; it must be 0 or more and finite."),
        ({"replay_clip": 1.0}, "controller.replay_clip is 1.0; it must be in (0, 1)."),
        ({"entropy_half_life": -1.0}, "controller.entropy_half_life is -1.0; it must be 0 or more and finite."),
    ],
)
def test_a_wrong_setting_is_refused_with_one_sentence(settings, sentence):
    with pytest.raises(ValueError) as raised:
        made(**settings)
    assert str(raised.value) == sentence
