"""Randomness depends only on its key, in this version and in later ones: stored searches need that."""

import pytest

from automl.controllers.keyed import child_seed, initial, stream


def test_golden_values():
    assert stream(0, 0, 0).random(3).tolist() == [0.8842653082283397, 0.7709483023290015, 0.2660918989011175]
    assert stream(7, 3, 2).random(2).tolist() == [0.05607779829031645, 0.7953096155232925]
    assert initial(0, "start").uniform(-0.08, 0.08, 2).tolist() == [-0.040562937428215984, -0.059786308765960486]
    assert [child_seed(0, number) for number in range(3)] == [1719331423, 421935548, 1707694024]


def test_a_stream_does_not_depend_on_earlier_draws():
    keys = [(seed, number, attempt) for seed in range(2) for number in range(2) for attempt in range(2)]
    forwards = {key: stream(*key).random() for key in keys}
    backwards = {key: stream(*key).random() for key in reversed(keys)}
    assert forwards == backwards
    assert len(set(forwards.values())) == len(keys)


def test_purposes_do_not_share_numbers():
    assert initial(0, "start").random() != initial(0, "nothing").random()
    assert initial(0, "start").random() != initial(1, "start").random()
    # 12 in seed 1 is no 2 in seed 11.
    assert child_seed(1, 12) != child_seed(11, 2)


@pytest.mark.parametrize("seed", [0, 2**63, 10**30])
def test_a_child_s_seed_fits_into_31_bits(seed):
    assert all(0 <= child_seed(seed, number) < 2**31 for number in range(100))
