"""Metrics that a user's function reports are checked against the goal and early stopping at the first child."""

from __future__ import annotations

import contextlib

import pytest

import automl as face
from automl import Choice
from automl.db.store import Store

TEXT = """
from automl import Choice

def space():
    return (yield Choice("a", tuple(range(200))))

def evaluate(spec, epochs, report):
    for epoch in range(1, epochs + 1):
        report(epoch, {reported}=spec / 200 * epoch / epochs, loss=1.0)
    return {returned}
"""
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random")


@pytest.fixture
def searched(automl, folder):
    def search(*arguments, workers="0", reported="val_acc", returned='{"acc": spec / 200}'):
        (folder / "mine.py").write_text(TEXT.format(reported=reported, returned=returned))
        options = (*OURS, "--workers", workers, "--set", "task.epochs=3", "--children", "12")
        return automl("search", "s", *options, *arguments)

    return search


def states():
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        return [child.state for child in store.children(store.search("s").id)]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_early_stopping_by_a_metric_that_is_never_reported(searched, workers):
    done = searched("--maximize", "acc", "--early-stop", "median", workers=workers)
    assert done.code == 0
    told = (
        "--early-stop median uses acc, which is not reported after each epoch, so no child can be stopped: the "
        "epochs of child NUMBER reported val_acc and loss."
    )
    lines = [line for line in done.out.splitlines() if "not reported" in line]
    assert len(lines) == 1
    before, after = told.split("NUMBER")
    assert lines[0].startswith(before) and lines[0].endswith(after)
    assert states().count("trained") == 12


def test_early_stopping_by_the_reward_of_a_task_without_a_goal(searched):
    done = searched("--early-stop", "asha", returned="spec / 200")
    assert "--early-stop asha uses reward, which is not reported after each epoch" in done.out


def test_early_stopping_by_a_metric_that_is_reported(searched):
    assert "never reported" not in searched("--maximize", "acc", "--early-stop", "median", reported="acc").out


@pytest.mark.parametrize(
    "goal, returned, sentence",
    [
        (("--maximize", "f1"), '{"acc": 0.5, "loss": 1.0}', "The task returned acc, loss; --maximize f1 needs 'f1'"),
        (("--minimize", "name"), '{"name": "relu", "acc": 0.5}', "where one number (name) was expected"),
        (("--minimize", "loss"), "0.5", "with --minimize loss it must return a dict with 'loss'"),
        ((), '{"acc": 0.5}', "The task returned a dict with acc, and no 'reward'"),
        ((), "None", "The task returned None"),
    ],
)
def test_a_result_without_the_reward_pauses_before_the_second_child(searched, goal, returned, sentence):
    done = searched(*goal, returned=returned)
    assert done.code not in (0, 1)
    assert "The first child failed (invalid: " in done.out and sentence in done.out
    assert [state for state in states() if state != "ready"] == ["failed"]


def test_a_search_from_python_warns(folder):
    def space():
        return (yield Choice("a", (1, 2, 3, 4)))

    def task(spec, epochs, report):
        report(1, val_acc=0.5)
        return 0.5

    options = {"early_stop": "median", "set": ("task.epochs=3",), "workers": 0, "controller": "random"}
    with pytest.warns(UserWarning, match="uses reward, which is not reported after each epoch"):
        face.search("s", space=space, task=task, children=2, **options)
