"""Gradients accumulated over several batches before an update, as in the paper's search for recurrent cells."""

import json

import numpy as np
import pytest

from automl.controllers.base import ControllerState, Draw, Result
from automl.controllers.reinforce.controller import Reinforce
from automl.controllers.reinforce.presets import PRESETS, SCALES
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space

PAPER = {**PRESETS["paper-cells"], "learning_rate": 0.01}


def space():
    answers = []
    for index in range(3):
        answers.append((yield Choice(f"op{index}", ("p", "q", "r"))))
    return answers


def made(**settings):
    return Reinforce(Space(space), seed=3, **(PAPER | settings))


def children(controller, numbers, rewards):
    proposals = controller.ask([Draw(number) for number in numbers])
    return [
        Result(number, proposal.tokens, proposal.log_probs, reward)
        for number, proposal, reward in zip(numbers, proposals, rewards, strict=True)
    ]


def weights(controller):
    return {
        name: array
        for name, array in controller.state().arrays.items()
        if not name.startswith(("first/", "second/")) and name not in ("rewards", "adam_steps")
    }


def test_three_batches_are_learned_from_as_one():
    # Every batch has the mean 0.5, so the moving baseline is 0.5 throughout, as is the mean of all six.
    rewards = [0.2, 0.8, 0.1, 0.9, 0.5, 0.5]
    slow, fast = made(accumulate=3), made(accumulate=1)
    told = children(slow, range(6), rewards)
    first = weights(slow)
    for batch in range(2):
        stats = slow.tell(told[2 * batch : 2 * batch + 2])
        assert stats == {"baseline": 0.5, "mean_reward": 0.5, "accumulated": batch + 1}
        assert slow.state().arrays["adam_steps"] == 0
    assert "loss" in slow.tell(told[4:])
    fast.tell(told)
    assert slow.state().arrays["adam_steps"] == 1 == fast.state().arrays["adam_steps"]
    for name, array in weights(fast).items():
        np.testing.assert_array_equal(weights(slow)[name], array)
    assert any(not np.array_equal(first.get(name), array) for name, array in weights(slow).items())
    assert "pending" not in slow.state().values


def test_accumulated_batches_are_part_of_the_state():
    whole, before = made(accumulate=3), made(accumulate=3)
    told = children(whole, range(6), [0.3, 0.8, 0.1, 0.7, 0.5, 0.4])
    for batch in (told[:2], told[2:4]):
        whole.tell(batch)
        before.tell(batch)
    state = before.state()
    after = made(accumulate=3)
    after.restore(ControllerState(state.arrays, json.loads(json.dumps(state.values))))
    for controller in (whole, after):
        controller.tell(told[4:])
    assert whole.ask([Draw(9)]) == after.ask([Draw(9)])
    for name, array in whole.state().arrays.items():
        np.testing.assert_array_equal(after.state().arrays[name], array)


def test_a_batch_of_lost_children_is_not_accumulated():
    controller = made(accumulate=2)
    told = children(controller, range(2), [0.5, None])
    controller.tell(told)
    assert controller.tell([Result(5, told[0].tokens, told[0].log_probs, None)]) == {}
    assert controller.state().values["pending"]["batches"] == 1


def test_the_paper_s_scales():
    assert PRESETS["paper-cells"]["accumulate"] == 10 and PRESETS["paper-cells"]["learning_rate"] == 0.0005
    assert SCALES == {"paper": {"replicas": 100, "batch_size": 8}, "paper-cells": {"replicas": 400, "batch_size": 1}}
    with pytest.raises(ValueError, match=r"^controller\.accumulate is 0; it must be above 0 and finite\.$"):
        made(accumulate=0)
