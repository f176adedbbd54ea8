"""A search over a user's space with `Integer` and `Real`, through the command line."""

from __future__ import annotations

import contextlib
import json

import pytest

import automl as face
from automl.db.store import Store

TEXT = """
from automl import Integer, Real

def space():
    lr = yield Real("lr", 1e-4, {high}, {bins}, log=True)
    layers = []
    for index in range((yield Integer("depth", 1, 3))):
        layers.append((yield Integer(f"layer{{index}}/units", 8, {most}, step=2, log=True)))
    return {{"lr": lr, "layers": layers}}

def evaluate(spec):
    return {{"reward": -abs(spec["lr"] - 0.01) - abs(sum(spec["layers"]) - 48) / 48, "lr_used": spec["lr"]}}
"""
FIRST = {"high": 0.1, "bins": 4, "most": 32}
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--batch-size", "4", "--workers", "0")


@pytest.fixture
def write(folder):
    def write(**changes):
        (folder / "mine.py").write_text(TEXT.format(**FIRST | changes))

    write()
    return write


def children():
    return face.Result("s", "automl.db").children


def decisions():
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        return store.decisions(store.search("s").id)


def trained():
    return [child for child in children() if child.state == "trained"]


@pytest.mark.parametrize("controller", ["reinforce", "random"])
def test_a_search_over_ranges_is_resumed_and_narrowed(automl, write, controller):
    only = ("--only", "lr=1e-3..1e-1", "--only", "layer*/units=8..16")
    started = automl("search", "s", *OURS, *only, "--controller", controller, "--children", "8")
    assert started.code == 0, started.err
    assert automl("resume", "s", "--children", "12").code == 0
    for child in trained():
        assert child.spec["lr"] in (0.001, 0.01, 0.1) and set(child.spec["layers"]) <= {8, 16}
        assert child.metrics["lr_used"] == child.spec["lr"]
    stored = {record["name"]: record for record in decisions()}
    assert (stored["lr"]["type"], stored["lr"]["low"], stored["lr"]["high"]) == ("real", 0.0001, 0.1)
    assert (stored["depth"]["type"], stored["depth"]["step"]) == ("integer", 1)
    assert "lr" in automl("show", "s").out


def test_a_wrong_range_leaves_no_search(automl, write, folder):
    refused = automl("search", "s", *OURS, "--only", "lr=0.5..1", "--children", "4").error
    assert refused == "--only lr=0.5..1: no value of 'lr' lies in the range 0.5..1; they go from 0.0001 to 0.1."
    write(high=1e-5)
    refused = automl("search", "s", *OURS, "--children", "4").error
    assert refused.endswith("Real 'lr': low is 0.0001 and high is 1e-05; low must be below high.")
    assert not (folder / "automl.db").exists()


def test_a_child_of_ranges_is_exported_and_proposed(automl, write, folder):
    assert automl("search", "s", *OURS, "--controller", "random", "--children", "4").code == 0
    assert automl("export", "s", "--format", "json", "--to", "best.json").code == 0
    best = max(trained(), key=lambda child: child.reward)
    assert json.loads((folder / "best.json").read_text())["spec"] == best.spec
    given = {"lr": 0.01, "depth": 3, "layer0/units": 8, "layer1/units": 16, "layer2/units": 32}
    (folder / "mine.json").write_text(json.dumps(given))
    assert automl("propose", "s", "--spec", "mine.json").code == 0
    wrong = folder / "wrong.json"
    wrong.write_text(json.dumps(given | {"layer0/units": 9}))
    assert (
        automl("propose", "s", "--spec", "wrong.json").error == "'layer0/units' cannot be 9; the nearest are 8 and 16."
    )
    assert automl("propose", "s", "--tokens", "0,0,1").code == 0
    assert automl("resume", "s", "--children", "12").code == 0
    specs = [child.spec for child in children() if child.origin == "person"]
    assert specs == [{"lr": 0.01, "layers": [8, 16, 32]}, {"lr": 0.0001, "layers": [16]}]


def test_a_range_that_has_grown_is_accepted_by_its_values(automl, write):
    assert automl("search", "s", *OURS, "--controller", "reinforce", "--children", "8").code == 0
    before = {child.number: (child.spec, child.tokens) for child in trained()}
    write(bins=7, most=64)  # ten more values per decade, and another number of units
    assert "accept the new one with --accept-change" in automl("resume", "s", "--children", "12").error
    resumed = automl("resume", "s", "--children", "12", "--accept-change")
    assert resumed.code == 0, resumed.err
    assert {number: (child.spec, child.tokens) for number, child in enumerate(trained()) if number < 8} == before
    for child in trained():
        assert child.metrics["lr_used"] == child.spec["lr"]
    stored = {record["name"]: record for record in decisions()}
    assert stored["layer0/units"]["options"] == [8, 16, 32, 64]
    assert stored["lr"]["options"][:4] == [0.0001, 0.001, 0.01, 0.1]
    write(most=16, bins=7)
    refused = automl("resume", "s", "--children", "14", "--accept-change").error
    assert "no longer has the option" in refused
