"""A child is trained as it was recorded, even if its space changes; a compatible change of a space is accepted."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest

import automl as face
from automl import Choice
from automl.db.store import Store

TEXT = """
import os
from automl import Choice, Links

def space():
    lr = yield Choice("lr", {lr})
    units = yield Choice("{units_name}", {units}{kind})
    {more}
    return {{"lr": lr, "units": units{extra}}}

def evaluate(spec):
    return {{"reward": spec["units"] * spec["lr"], "lr_used": spec["lr"], "units_used": spec["units"]}}
"""
BEFORE = {
    "lr": "(0.1, 0.01)",
    "units": "(16, 32, 64, 128)",
    "units_name": "units",
    "kind": "",
    "more": "pass",
    "extra": "",
}
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--batch-size", "2")


@pytest.fixture
def write(folder):
    def write(**changes):
        (folder / "mine.py").write_text(TEXT.format(**BEFORE | changes))

    return write


@pytest.fixture
def begun(automl, write):
    """A search of three of the eight children of the space."""

    def begin(controller="random", workers="0", **changes):
        write(**changes)
        assert (
            automl("search", "s", *OURS, "--controller", controller, "--workers", workers, "--children", "3").code == 0
        )
        return children()

    return begin


def children():
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        return store.children(store.search("s").id)


def assert_recorded_as_trained():
    trained = [child for child in children() if child.state == "trained"]
    for child in trained:
        assert child.metrics == {"lr_used": child.spec["lr"], "units_used": child.spec["units"]}
    return trained


MORE = {"lr": "(1.0, 0.1, 0.01)"}


@pytest.mark.parametrize(
    "controller, workers, changes",
    [
        ("random", "0", MORE),
        ("random", "1", MORE),
        ("reinforce", "0", {"lr": "(0.01, 1.0, 0.1)", "units": "(8, 128, 16, 32, 64)"}),
        ("reinforce", "0", {"lr": "(0.01, 0.1)"}),
    ],
    ids=["inserted", "inserted, a worker", "moved and added", "swapped"],
)
def test_options_are_recognised_by_their_values(automl, begun, write, controller, workers, changes):
    before = begun(controller, workers)
    write(**changes)
    done = automl("resume", "s", "--children", "8", "--accept-change")
    assert done.code == 0, done
    trained = assert_recorded_as_trained()
    after = children()[: len(before)]
    assert [(child.tokens, child.spec) for child in after] == [(child.tokens, child.spec) for child in before]
    assert len(trained) == 8 and len({(child.spec["lr"], child.spec["units"]) for child in trained}) == 8
    # From now on this is the search's file: resumed, exported and proposed under the same numbers.
    assert automl("resume", "s", "--children", "9").code in (0, 4)
    assert_recorded_as_trained()


def test_options_added_twice(automl, begun, write):
    begun()
    write(lr="(1.0, 0.1, 0.01)")
    assert automl("resume", "s", "--children", "5", "--accept-change").code == 0
    write(lr="(2.0, 1.0, 0.5, 0.1, 0.01)")
    assert automl("resume", "s", "--children", "20", "--accept-change").code == 0
    assert len(assert_recorded_as_trained()) == 20
    assert {child.spec["lr"] for child in children()} == {0.01, 0.1, 0.5, 1.0, 2.0}


def test_a_child_requested_before_the_change_is_the_same_after_it(automl, begun, write, folder):
    have = [child.spec for child in begun()]
    wanted = next(spec for spec in ({"lr": 0.01, "units": units} for units in (16, 32, 64, 128)) if spec not in have)
    (folder / "spec.json").write_text(json.dumps(wanted))
    assert automl("propose", "s", "--spec", "spec.json").code == 0
    write(lr="(1.0, 0.01, 0.1)")
    assert automl("resume", "s", "--children", "8", "--accept-change").code == 0
    assert_recorded_as_trained()
    (person,) = [child for child in children() if child.origin == "person"]
    assert person.spec == wanted and person.state == "trained"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"lr": "(0.1, 0.02)"}, "the decision 'lr' no longer has the option 0.01"),
        ({"lr": "(0.1, 0.01, 0.1)"}, "The decision 'lr' has the option 0.1 twice"),
        ({"lr": "(0.1, 0.01), kind='rate'"}, "the decision 'lr' is of the kind 'rate' where it was of 'lr[0.1, 0.01]'"),
        ({"units_name": "width"}, "there is the decision 'width' where 'units' was"),
        ({"more": "yield Choice('more', (1, 2))"}, "the decision 'more' is new"),
        ({"more": "yield Links('more', 0)"}, "the decision 'more' is new"),
        ({"extra": ", 'depth': 1"}, "'depth' in the spec is 1 where absent is recorded"),
        ({"lr": "(0.1, print)"}, "The decision 'lr' has the option <built-in function print>"),
        ({"lr": "(0.1, os.getpid() + os.times().elapsed)"}, "the decision 'lr'"),
    ],
)
def test_what_cannot_be_accepted(automl, begun, write, changes, sentence):
    before = begun()
    write(**changes)
    assert sentence in automl("resume", "s", "--children", "8", "--accept-change").error
    assert children() == before
    write()
    assert automl("resume", "s", "--children", "5").code == 0
    assert_recorded_as_trained()


def as_of_0_1_0():
    """Takes from the store what version 0.1.0 did not record."""
    with contextlib.closing(sqlite3.connect("automl.db")) as connection, connection:
        connection.execute("UPDATE children SET decisions = NULL")
        connection.execute("DELETE FROM decisions")


def test_a_search_of_an_earlier_version_records_its_decisions_when_it_is_resumed(automl, begun, write):
    begun()
    as_of_0_1_0()
    write(lr="(1.0, 0.1, 0.01)")
    error = automl("resume", "s", "--children", "8", "--accept-change").error
    assert "Put the old text back and resume once" in error
    write()
    assert automl("resume", "s", "--children", "4").code == 0
    assert all(child.decisions == [0, 1] for child in children())
    write(lr="(1.0, 0.1, 0.01)")
    assert automl("resume", "s", "--children", "9", "--accept-change").code == 0
    assert len(assert_recorded_as_trained()) == 9


def test_a_search_of_an_earlier_version_whose_space_is_not_deterministic(automl, begun):
    before = begun(extra=", 'seen': os.path.exists('seen')")
    as_of_0_1_0()
    open("seen", "w").close()
    error = automl("resume", "s", "--children", "5").error
    assert error.startswith(
        "The space no longer makes child 0 from its tokens: 'seen' in the spec is true where false is"
    )
    assert [child.state for child in children()] == [child.state for child in before]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_space_that_changes_while_it_runs_pauses_the_search(automl, write, workers):
    """No check at the start can see this: the task itself changes what the space returns."""
    write(extra=", 'seen': os.path.exists('seen')")
    with open("mine.py", "a") as file:
        file.write("\n\ndef once(spec):\n    open('seen', 'w').close()\n    return 1.0\n")
    arguments = ("--space", "mine.py:space", "--task", "mine.py:once", "--controller", "random")
    done = automl("search", "s", *arguments, "--workers", workers, "--children", "5")
    assert done.code not in (0, 1)
    assert "from its tokens: 'seen' in the spec is true where false is recorded. A space must yield" in done.out
    states = [child.state for child in children()]
    assert states.count("trained") == 1 and states.count("failed") == states.count("running") == 0
    error = automl("resume", "s").error
    assert "from its tokens: 'seen' in the spec is true where false is recorded" in error


def test_commands_that_decode_a_child_refuse_another(automl, begun, folder):
    begun(extra=", 'seen': os.path.exists('seen')")
    open("seen", "w").close()
    for command in (("export", "s", "--format", "python", "--to", "x.py"), ("train", "s", "--seeds", "1")):
        assert "'seen' in the spec is true where false is recorded" in automl(*command).error
    assert not (folder / "x.py").exists()


def test_a_function_of_a_session_that_changes(folder):
    def task(spec):
        return 1.0

    def space():
        return {"a": (yield Choice("a", (1, 2, 3, 4)))}

    def changed():
        return {"a": (yield Choice("a", (2, 1, 3, 4)))}

    options = {"workers": 0, "controller": "random", "batch_size": 1}
    face.search("s", space=space, task=task, children=2, **options)
    with pytest.raises(ValueError, match=r"'a' has the options \[2, 1, 3, 4\] where it had \[1, 2, 3, 4\]"):
        face.resume("s", space=changed, task=task, children=3)
    assert face.resume("s", space=space, task=task, children=4).ending.trained == 4
