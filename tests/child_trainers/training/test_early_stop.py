"""Which children are stopped early, and what they are told to be worth; over a real store."""

import subprocess
import sys

import pytest

from automl.child_trainers.task import Objective
from automl.child_trainers.training.early_stop import (
    FIRST_CHILDREN,
    EarlyStopError,
    EarlyStopper,
    SuccessiveHalving,
    predict_reward,
)
from automl.child_trainers.workers.process import ROOT
from automl.db.records import Delivery, Fault

OTHERS = (0.3, 0.4, 0.55, 0.7)  # what every child before reached, by epoch
EPOCHS = len(OTHERS)
POOR = (0.1,) * EPOCHS
NEXT = 10**6  # the number of the child that is judged: of none that has ended


@pytest.fixture
def search(new_search, clock):
    return new_search([(0,)] * 80, clock=clock)


@pytest.fixture
def finish(search, clock):
    """Trains one child to its end, as a worker would have: its values by epoch, and its reward."""

    def finish(values, reward=None, *, metric="accuracy", **delivered):
        clock.now += 1
        claim = search.store.claim(search.id, "1.0.1", "cpu")
        for epoch, value in enumerate(values, start=1):
            search.store.measure(claim, epoch, {metric: value, "other": -value})
        delivery = Delivery(reward=values[-1] if reward is None else reward, **delivered)
        assert search.store.deliver(claim, delivery)

    return finish


@pytest.fixture
def new_stopper(search):
    def make(pruner="median", *, metric="accuracy", maximize=True, epochs=EPOCHS):
        return EarlyStopper(search.store, search.id, pruner, objective=Objective(metric, maximize, epochs))

    return make


def stopped_at(stopper, values, metric="accuracy"):
    """The epoch after which a new child of these values is stopped, or None."""
    stopper.begin(NEXT)
    for epoch, value in enumerate(values, start=1):
        try:
            stopper.report(epoch, {metric: value, "other": -value})
        except EarlyStopError as error:
            assert error.epoch == epoch and str(error) == f"It was stopped after epoch {epoch}."
            return epoch
    return None


# Who is stopped


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_nobody_is_stopped_before_the_first_children_have_finished(finish, new_stopper, pruner):
    for _ in range(FIRST_CHILDREN):
        assert stopped_at(new_stopper(pruner), POOR) is None
        finish(OTHERS)
    assert FIRST_CHILDREN == 8


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        (POOR, 2),  # the first epoch is left alone
        ((0.5, 0.5, 0.5, 0.9), 3),  # at the first epoch at which it falls behind
        ((0.5, 0.1, 0.6, 0.7), None),  # what counts is the best so far
        (OTHERS, None),  # half of the others are no worse
        ((0.4, 0.5, 0.6, 0.8), None),
        ((0.1, 0.4, 0.6, 0.8), None),
        ((0.6, 0.6, 0.6, 0.1), None),  # after the last epoch there is nothing to save
    ],
)
def test_a_child_below_the_median_is_stopped(finish, new_stopper, values, epoch):
    for _ in range(FIRST_CHILDREN):
        finish(OTHERS)
    assert stopped_at(new_stopper(), values) == epoch


def test_the_median_is_of_the_same_epoch(finish, new_stopper):
    for number in range(9):
        finish((0.1, 0.1 * (number + 1), 0.9))
    stopper = new_stopper(epochs=3)
    assert [stopped_at(stopper, (0.0, 0.1 * worth, 0.0)) for worth in (4.9, 5.1)] == [2, None]


def test_the_last_epoch_is_that_of_the_objective(finish, new_stopper):
    for _ in range(FIRST_CHILDREN):
        finish((0.1, 0.1, 0.9))
    behind = (0.2, 0.2, 0.2)
    assert stopped_at(new_stopper(epochs=3), behind) is None
    assert stopped_at(new_stopper(epochs=4), behind) == 3


def test_a_metric_that_is_to_be_low(finish, new_stopper):
    for _ in range(FIRST_CHILDREN):
        finish((3.0, 2.0, 1.0), -1.0, metric="loss")
    stopper = new_stopper(metric="loss", maximize=False, epochs=3)
    assert [stopped_at(stopper, values, "loss") for values in ((4, 2.5, 0.1), (4, 1.9, 2.0))] == [2, None]


def test_epochs_that_tell_nothing_of_the_metric_stop_nobody(finish, new_stopper):
    for _ in range(FIRST_CHILDREN):
        finish(OTHERS)
    assert stopped_at(new_stopper(), POOR, metric="val_accuracy") is None


# Against whom


def test_only_children_that_were_trained_to_their_end_count(search, finish, new_stopper):
    for _ in range(FIRST_CHILDREN - 1):
        finish(OTHERS)
    finish(OTHERS, metric="another")
    finish(OTHERS[:2], 0.1, stopped_at=2)
    finish(OTHERS, fault=Fault.DIVERGED)
    search.store.measure(search.store.claim(search.id, "1.1.1", "cpu"), 1, {"accuracy": 0.9})
    stopper = new_stopper()
    assert stopped_at(stopper, POOR) is None
    finish(OTHERS)
    assert stopped_at(stopper, POOR) == 2


def test_the_median_is_of_stopped_children_too_as_far_as_they_came(finish, new_stopper):
    for number in range(FIRST_CHILDREN):
        finish((0.3, 0.4, 0.5 + number / 100))
    stopper = new_stopper(epochs=3)
    assert stopped_at(stopper, (0.3, 0.39)) == 2
    for _ in range(2 * FIRST_CHILDREN):
        finish((0.0, 0.0), 0.0, metrics={"accuracy": 0.0}, stopped_at=2)
    assert stopped_at(stopper, (0.3, 0.39)) is None


def test_what_a_stopped_child_was_told_to_be_worth_tells_nothing_of_others(finish, new_stopper):
    for number in range(FIRST_CHILDREN):
        finish((0.3, 0.4, 0.5 + number / 100))
    stopper = new_stopper(epochs=3)
    assert stopped_at(stopper, (0.3, 0.35)) == 2
    before = stopper.predicted_reward()
    finish((0.3, 0.35), 0.0, metrics={"accuracy": 0.0}, stopped_at=2)
    assert stopped_at(stopper, (0.3, 0.35)) == 2
    assert stopper.predicted_reward() == before


def test_children_of_other_workers_are_seen_at_the_next_one_s_begin(finish, new_stopper):
    for _ in range(FIRST_CHILDREN):
        finish(OTHERS)
    stopper = new_stopper()
    middling = (0.5, 0.5, 0.6, 0.9)
    assert stopped_at(stopper, middling) is None
    for _ in range(FIRST_CHILDREN + 1):
        finish((0.8, 0.8, 0.8, 0.8))
    assert stopped_at(stopper, middling) == 2


def test_children_that_finish_at_the_same_time_are_all_seen_and_each_once(clock, finish, new_stopper):
    stopper = new_stopper(epochs=3)
    for number in range(4):
        stopper.begin(NEXT)
        for _ in range(2):
            finish((0.0, 0.1 * number, 0.5))
            clock.now -= 1
    assert stopped_at(stopper, (0.0, 0.1499, 0.5)) == 2
    assert stopped_at(stopper, (0.0, 0.1501, 0.5)) is None


# Hyperband


def test_hyperband_stops_obviously_poor_children_and_never_the_best(finish, new_stopper):
    for number in range(24):
        worth = 0.3 + number / 100
        finish([worth + epoch / 100 for epoch in range(9)])
    stopper = new_stopper("hyperband", epochs=9)
    stops = [stopped_at(stopper, [0.01 + number / 1000] * 9) for number in range(20)]
    assert {epoch for epoch in stops if epoch is not None} <= {1, 3}  # its rungs, of which the last epoch is none
    assert any(stops)
    assert [stopped_at(stopper, [0.9] * 9) for _ in range(3)] == [None] * 3


def test_hyperband_minimizes_too(finish, new_stopper):
    for number in range(24):
        finish([0.3 + number / 100] * 9, -0.3, metric="loss")
    stopper = new_stopper("hyperband", metric="loss", maximize=False, epochs=9)
    assert any(stopped_at(stopper, [9.0 + number] * 9, "loss") for number in range(20))
    assert stopped_at(stopper, [0.1] * 9, "loss") is None


# Who goes on


@pytest.fixture
def halving(search):
    return SuccessiveHalving(search.store, search.id, objective=Objective("accuracy", maximize=True, epochs=9))


def test_the_best_third_of_each_rung_goes_on_the_highest_rung_first(finish, halving):
    assert halving.rungs == [1, 3] and halving.to_continue() == []
    for number in range(6):
        finish((0.1 * number,), stopped_at=1)
    assert halving.to_continue() == [5, 4]
    for number in range(6, 9):
        finish((0.05, 0.0, 0.1 * number), stopped_at=3)
    assert halving.to_continue() == [8, 5, 4, 3]
    finish([0.9] * 9)  # better than all at both rungs, and at its end
    assert halving.to_continue() == [5, 4]


def test_children_that_end_after_the_clock_was_set_back_are_seen(finish, halving, clock):
    for number in range(3):
        finish((0.1 * number,), stopped_at=1)
    assert halving.to_continue() == [2]
    clock.now -= 60
    for number in range(3, 6):
        finish((0.1 * number,), stopped_at=1)
        assert halving.to_continue()[0] == number


# What a stopped child is worth

RISING = [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0)]  # on a line; lowest 10, median 25


@pytest.mark.parametrize(
    ("value", "finished", "reward"),
    [
        (1.5, RISING, 15.0),
        (2.5, RISING, 25.0),
        (3.5, RISING, 25.0),  # no better than half of the others
        (0.5, RISING, 10.0),  # no worse than any
        (3.5, [(4.0, -4.0), (3.0, -3.0), (2.0, -2.0), (1.0, -1.0)], -3.5),
        # Means 1 and 2; the slope is ((-1)(-2) + 0·1 + 1·1) / (1 + 0 + 1) = 1.5.
        (0.5, [(0.0, 0.0), (1.0, 3.0), (2.0, 3.0)], 1.25),
        (1.0, [(0.0, 0.0), (1.0, 3.0), (2.0, 3.0)], 2.0),
        # Where all values are equal the line is level, at the mean.
        (0.2, [(0.5, 0.0), (0.5, 4.0), (0.5, 5.0)], 3.0),
        (0.2, [(0.5, 1.0), (0.5, 2.0), (0.5, 6.0)], 2.0),  # the mean is 3, the median 2
        (0.2, [(0.5, 0.7)] * 3, 0.7),
        (0.2, [(0.5, 0.7)], 0.7),
    ],
)
def test_a_reward_is_predicted_by_the_line_and_kept_in_the_lower_half(value, finished, reward):
    assert predict_reward(value, finished) == pytest.approx(reward, abs=1e-12)


def test_the_prediction_goes_by_the_value_at_the_last_epoch(finish, new_stopper):
    for number in range(FIRST_CHILDREN):  # at epoch 2 rewards are ten times the value; at epoch 1 all are equal
        finish((0.9, 0.5 + number / 10, 0.0), 5.0 + number)
    stopper = new_stopper(epochs=3)
    assert stopped_at(stopper, (0.1, 0.62)) == 2
    assert stopper.predicted_reward() == pytest.approx(6.2)


def test_it_is_imported_without_optuna():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import automl.child_trainers.training.early_stop; "
        "print({'optuna', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
