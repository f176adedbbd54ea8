"""Searches with controllers that need the children so far, through the command line."""

from __future__ import annotations

import contextlib
import json

import pytest

import automl as face
from automl.db.store import Store

TEXT = """
from automl import Choice, Integer, Links, Real

def space():
    kind = yield Choice("kind", ("deep", "wide"))
    rate = yield Real("rate", 1e-3, 1.0, 4, log=True)
    layers = []
    for index in range(3 if kind == "deep" else 1):
        units = yield Integer(f"layer{index}/units", 4, 32, 4)
        layers.append([units, list((yield Links(f"layer{index}/inputs", index, kind="inputs")))])
    return {"kind": kind, "rate": rate, "layers": layers}

def evaluate(spec):
    if spec["layers"][0][0] == 4:
        raise ValueError("too few units")
    return {"reward": -abs(spec["rate"] - 0.01) - sum(abs(units - 24) / 28 for units, _ in spec["layers"])}
"""
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--batch-size", "2", "--workers", "0")
SMALL = ("--set", "controller.uniform=20", "--set", "controller.mutations=20")
KINDS = {
    "evolution": ("evolution", "--set", "controller.population=4", "--set", "controller.sample=2"),
    "tpe": ("optuna", "--set", "controller.n_startup_trials=4"),
    "paper": ("optuna", "--controller-preset", "paper", "--set", "controller.n_startup_trials=4"),
    "nsgaii": ("optuna", "--set", "controller.sampler=nsgaii", "--set", "controller.population_size=4"),
    "surrogate": ("surrogate", "--set", "controller.initial=4", *SMALL),
    "reinforce": (
        "reinforce",
        *("--set", "controller.initial=4", "--set", "controller.candidates=16", "--set", "controller.model_samples=8"),
        *SMALL,
    ),
    "bruteforce": ("optuna", "--set", "controller.sampler=BruteForceSampler"),
}


@pytest.fixture(autouse=True)
def write(folder):
    (folder / "mine.py").write_text(TEXT)


def digest_of(name):
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        return store.digest(store.search(name).id)


def children_of(name):
    return face.Result(name, "automl.db").children


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_resume_in_the_middle_equals_an_uninterrupted_search(automl, kind, replicas):
    flags = (*OURS, "--controller", *KINDS[kind], "--replicas", replicas, "--keep-going", "--children")
    whole = automl("search", "whole", *flags, 12)
    assert whole.code == 0, whole.err
    assert automl("search", "parts", *flags, 4).code == 0
    assert automl("resume", "parts", "--children", 7).code == 0
    assert automl("resume", "parts", "--children", 12).code == 0
    assert digest_of("parts") == digest_of("whole")
    children = children_of("whole")
    assert sum(child.state == "trained" for child in children) >= 12
    assert len({tuple(child.tokens) for child in children}) == len(children)
    assert {child.spec["kind"] for child in children} == {"deep", "wide"}
    assert kind == "reinforce" or "Importing TensorFlow" not in whole.err + whole.out


@pytest.mark.parametrize("kind", ["evolution", "tpe", "bruteforce"])
def test_narrowing_and_a_child_of_the_user_s(automl, folder, kind):
    only = ("--only", "layer*/units=8..16,28", "--fix", "kind=deep")
    flags = (*OURS, "--controller", *KINDS[kind], *only, "--children")
    assert automl("search", "s", *flags, 4).code == 0
    given = {"kind": "deep", "rate": 0.01, "layer1/inputs": [0], "layer2/inputs": []}
    given |= {f"layer{index}/units": 28 for index in range(3)} | {"layer0/inputs": []}
    (folder / "mine.json").write_text(json.dumps(given))
    assert automl("propose", "s", "--spec", "mine.json").code == 0
    assert automl("resume", "s", "--children", 14).code == 0
    for child in children_of("s"):
        assert child.spec["kind"] == "deep"
        assert {units for units, _ in child.spec["layers"]} <= {8, 12, 16, 28}
    (person,) = [child for child in children_of("s") if child.origin == "person"]
    assert person.spec == {"kind": "deep", "rate": 0.01, "layers": [[28, []], [28, [0]], [28, []]]}


def test_a_small_space_is_exhausted(automl, folder):
    (folder / "mine.py").write_text(
        "from automl import Choice\n"
        "def space():\n    return [(yield Choice('a', (1, 2, 3))), (yield Choice('b', (1, 2)))]\n"
        "def evaluate(spec):\n    return {'reward': float(sum(spec))}\n"
    )
    for name, kind in (("e", "evolution"), ("o", "tpe"), ("b", "bruteforce")):
        ran = automl("search", name, *OURS, "--controller", *KINDS[kind], "--children", 20)
        assert "exhausted 6/20" in ran.out + ran.err
        assert len(children_of(name)) == 6


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--set", "controller.sampler=tpee"),
            "There is no Optuna sampler called 'tpee'; there is tpe, bruteforce, gp, cmaes, random, nsgaii, nsgaiii, "
            "qmc.",
        ),
        (
            ("--set", "controller.sampler=grid"),
            "The Optuna sampler 'grid' needs a list of all combinations and cannot do conditional decisions; use tpe, "
            "random or bruteforce.",
        ),
        (
            ("--set", "controller.sampler=qmc"),
            "The Optuna sampler 'qmc' cannot do conditional decisions, and only some children have 'layer1/inputs'; "
            "use tpe, random or bruteforce.",
        ),
        (
            ("--set", "controller.samplr=tpe"),
            "There is no controller option called 'samplr'; there is sampler, ",
        ),
    ],
)
def test_a_sampler_that_cannot_be_is_refused_before_the_search_begins(automl, folder, flags, sentence):
    ran = automl("search", "s", *OURS, "--controller", "optuna", *flags, "--children", 4)
    assert ran.code == 1 and sentence in " ".join(ran.err.split()), ran.err
    assert not (folder / "automl.db").exists()
