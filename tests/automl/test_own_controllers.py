"""A controller of the user's own: in a file outside the packages, through the command line and from Python."""

from __future__ import annotations

import contextlib
import json

import pytest
from command_line import MINE

import automl as face
from automl.controllers.random_search import RandomSearch
from automl.db.store import Store

# Evolution keeps nothing: a resume replays what it was told. Its parents are the best children it was told of.
EVOLUTION = """
import json
from pathlib import Path
from automl.controllers.base import Controller, Proposal, ResultState
from automl.controllers.keyed import stream

class Evolution(Controller):
    def __init__(self, space, *, seed, parents=3):
        super().__init__(space, seed=seed)
        self.parents = parents
        self.told = []

    def propose(self, draws, pending):
        return [self.draw(draw, pending) for draw in draws]

    def draw(self, draw, pending):
        random = stream(self.seed, draw.number, draw.attempt)
        best = sorted(self.told, key=lambda result: -result.reward)[:self.parents]
        parent = best[random.integers(len(best))].tokens if best else None
        walk = self.space.walk(draw.number)
        while (decision := walk.decision) is not None:
            place = len(walk.tokens)
            answer = draw.answer(decision)
            if answer is None and parent is not None and random.random() < 0.9:
                answer = parent[place:place + decision.num_tokens]
            walk.answer(answer or (int(random.integers(len(decision.options))),))
        with Path(__file__).with_name("pending.jsonl").open("a") as file:
            file.write(json.dumps([draw.number, [[one.number, list(one.tokens)] for one in pending]]) + chr(10))
        return Proposal(walk.tokens)

    def learn(self, results):
        self.told += results
        with Path(__file__).with_name("told.jsonl").open("a") as file:
            for result in results:
                cost, origin = result.cost, result.origin
                file.write(json.dumps([result.number, result.reward, result.state, result.fault, dict(result.metrics),
                                       cost.seconds is not None, origin, result.stopped_at]) + chr(10))
        return {"parents": len(self.told)}
"""
# A hill climber keeps one number and one array, and has log-probabilities.
CLIMBER = """
import math
import numpy as np
from automl.controllers.base import ControllerState, PolicyController, Proposal
from automl.controllers.keyed import stream

class Climber(PolicyController):
    best, tokens = -1.0, np.zeros(5, np.int64)

    def propose(self, draws, pending):
        return [self.draw(draw) for draw in draws]

    def draw(self, draw):
        random = stream(self.seed, draw.number, draw.attempt)
        walk = self.space.walk(draw.number)
        log_probs = []
        while (decision := walk.decision) is not None:
            old = int(self.tokens[len(log_probs)])
            given = draw.answer(decision)
            other = (int(random.integers(4)),) if random.random() < 0.5 else (old,)
            walk.answer(given or other)
            log_probs.append(math.log(0.125 + 0.5 * (walk.tokens[-1] == old)))
        return Proposal(walk.tokens, tuple(log_probs))

    def learn(self, results):
        for result in results:
            if result.reward > self.best:
                self.best, self.tokens = result.reward, np.array(result.tokens)
        return {"best": self.best}

    def state(self):
        return ControllerState({"tokens": self.tokens}, {"best": self.best})

    def restore(self, state):
        self.best, self.tokens = state.values["best"], state.arrays["tokens"]
"""
KINDS = {"evolution.py:Evolution": EVOLUTION, "climber.py:Climber": CLIMBER}
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--batch-size", "4", "--workers", "0")


@pytest.fixture(autouse=True)
def files(mine, folder):
    for reference, text in KINDS.items():
        (folder / reference.partition(":")[0]).write_text(text)


def digest_of(name):
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        return store.digest(store.search(name).id)


def children_of(name):
    return face.Result(name, "automl.db").children


def steps_of(name):
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        search = store.search(name)
        return store.steps(search.id), store.last_step(search.id)


@pytest.mark.parametrize("controller", KINDS)
def test_a_resume_in_the_middle_equals_an_uninterrupted_search(automl, controller):
    started = ("search", "whole", *OURS, "--controller", controller, "--replicas", "2", "--children", "24")
    assert automl(*started).code == 0
    assert automl("search", "parts", *started[2:-1], "10").code == 0
    # At ten children a batch is half trained, and another is in flight.
    assert automl("resume", "parts", "--children", "17").code == 0
    assert automl("resume", "parts", "--children", "24").code == 0
    assert digest_of("parts") == digest_of("whole")
    rewards = [child.reward for child in children_of("whole")]
    assert sum(rewards[16:24]) > sum(rewards[:8])  # it learns


def test_a_controller_without_a_state_stores_none(automl):
    assert automl("search", "s", *OURS, "--controller", "evolution.py:Evolution", "--children", "8").code == 0
    steps, last = steps_of("s")
    assert last.blob is None
    assert [step.figures.get("parents") for step in steps] == [None, 4, 8]
    assert all(child.log_probs == [] for child in children_of("s"))
    shown = automl("show", "s", "--json").json
    assert "sha256" in shown["settings"]["controller"]["file"] and "text" not in shown["settings"]["controller"]["file"]
    assert "controller evolution.py:Evolution" in automl("show", "s").out


def test_a_replay_tells_all_batches_in_order_once(automl, folder):
    arguments = ("--controller", "evolution.py:Evolution", "--children", "10")
    assert automl("search", "s", *OURS, *arguments).code == 0
    assert numbers_told(folder) == list(range(8))
    (folder / "told.jsonl").unlink()
    assert automl("resume", "s", "--children", "16").code == 0
    assert numbers_told(folder) == [*range(8), *range(8, 16)]


def numbers_told(folder):
    return [json.loads(line)[0] for line in (folder / "told.jsonl").read_text().splitlines()]


def test_a_controller_sees_the_children_in_flight(automl, folder):
    arguments = ("--controller", "evolution.py:Evolution", "--replicas", "3", "--children", "16")
    assert automl("search", "s", *OURS, *arguments).code == 0
    tokens = {child.number: child.tokens for child in children_of("s")}
    seen = [json.loads(line) for line in (folder / "pending.jsonl").read_text().splitlines()]
    del seen[: 3 * 8]  # draws before the search is written
    for number, pending in seen:
        batch = number // 4
        assert [one for one, _ in pending] == list(range(max(0, 4 * (batch - 2)), 4 * batch))
        assert all(tokens[one] == of_child for one, of_child in pending)
    # A resume shows the same.
    (folder / "pending.jsonl").unlink()
    assert automl("resume", "s", "--children", "20").code == 0
    number, pending = json.loads((folder / "pending.jsonl").read_text().splitlines()[0])
    assert number == 28 and [one for one, _ in pending] == list(range(20, 28))


def test_a_controller_is_told_all_that_became_of_a_child(automl, mine, folder):
    mine.write_text(MINE.replace("    worth =", "    if sum(spec) % 2:\n        raise ValueError('no')\n    worth ="))
    arguments = ("--controller", "evolution.py:Evolution", "--children", "8", "--keep-going")
    assert automl("search", "s", *OURS, *arguments).code == 0
    told = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
    assert {entry[2] for entry in told} == {"trained", "failed"}
    for _, reward, state, fault, metrics, has_seconds, origin, stopped_at in told:
        assert (fault == "raised") == (state == "failed")
        assert (metrics.get("worth") == reward) == (state == "trained")
        assert (has_seconds, origin, stopped_at) == (True, "drawn", None)


def test_options_are_those_of_the_class(automl):
    arguments = ("search", "s", *OURS, "--controller", "evolution.py:Evolution", "--children", "4")
    wrong = automl(*arguments, "--set", "controller.parent=2")
    assert wrong.error == "There is no controller option called 'parent'; there is parents."
    assert automl(*arguments, "--set", "controller.parents=2").code == 0
    assert automl("resume", "s", "--set", "controller.parents=1", "--children", "8").code == 0
    wrong = automl(*arguments[:1], "t", *arguments[2:], "--controller-preset", "paper")
    assert wrong.error == "A controller of your own has no presets; drop the preset 'paper'."


def test_a_changed_or_moved_file_is_named_and_accepted(automl, folder):
    arguments = ("--controller", "climber.py:Climber", "--children", "4")
    assert automl("search", "s", *OURS, *arguments).code == 0
    file = folder / "climber.py"
    file.write_text(CLIMBER + "\n")
    assert "accept the new one with --accept-change" in automl("resume", "s", "--children", "8").error
    assert automl("resume", "s", "--children", "8", "--accept-change").code == 0
    file.rename(folder / "other.py")
    assert "--controller" in automl("resume", "s", "--children", "12").error
    assert automl("resume", "s", "--children", "12", "--controller", "other.py:Climber").code == 0
    assert automl("resume", "s", "--children", "16").code == 0


def test_a_controller_of_somebody_else_is_not_run(automl, tmp_path, monkeypatch):
    assert automl("search", "s", *OURS, "--controller", "climber.py:Climber", "--children", "4").code == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    approve = ("resume", "s", "--children", "8", "--space", "mine.py:space", "--task", "mine.py:evaluate")
    assert "--controller" in automl(*approve).error
    assert automl(*approve, "--controller", "climber.py:Climber").code == 0


class OfSession(RandomSearch):
    pass


OfSession.__module__ = "__main__"


def test_a_class_of_a_session_needs_no_worker_and_is_given_again(automl, folder):
    parts = {"space": "mine.py:space", "task": "mine.py:evaluate", "batch_size": 4, "workers": 1}
    assert face.search("s", controller=OfSession, children=4, **parts).ending.ok
    assert automl("resume", "s", "--children", "8").error == (
        "The controller of this search is OfSession, a class of a Python session; go on there with "
        "automl.resume(NAME, controller=…)."
    )
    assert face.resume("s", controller=OfSession, children=8, workers=0).ending.ok
    assert face.search("random", controller="random", children=8, **parts | {"workers": 0}).ending.ok
    assert [child.tokens for child in children_of("s")][:8] == [child.tokens for child in children_of("random")][:8]


def test_a_class_of_a_file_is_found_there(automl, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    from climber import Climber

    parts = {"space": "mine.py:space", "task": "mine.py:evaluate", "batch_size": 4, "workers": 0}
    assert face.search("s", controller=Climber, children=4, **parts).ending.ok
    assert automl("resume", "s", "--children", "8").code == 0


BASE = """
import numpy as np
from automl.controllers.base import Controller, ControllerState, PolicyController, Proposal, Result
from automl.controllers.random_search import RandomSearch

class Mine({base}):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self.random = RandomSearch(space, seed=seed)
        self.told = 0

    def propose(self, draws, pending):
        proposals = [Proposal(one.tokens) for one in self.random.ask(draws)]
        if self.told >= {late}:
            {propose}
        return proposals

    def learn(self, results):
        self.told += 1
        {learn}
        return {{}}

    def state(self):
        {state}
"""
FINE = {"base": "Controller", "late": 0, "propose": "pass", "learn": "pass", "state": "return None"}
MISTAKES = {  # what is wrong, and the end of the sentence that says so
    "few": ({"propose": "del proposals[0]"}, "returned 7 proposals for 8 draws; ask returns one for each."),
    "none": ({"propose": "return None"}, "returned None for 8 draws; ask returns a list of Proposal."),
    "short": (
        {"propose": "proposals[0] = Proposal((1, 2))"},
        "proposes (1, 2) as child 0, but the tokens end before the decision 'digit2'.",
    ),
    "long": (
        {"propose": "proposals[0] = Proposal((0,) * 7)"},
        "proposes (0, 0, 0, 0, 0, 0, 0) as child 0, but 2 of the tokens are left over after the last decision.",
    ),
    "range": (
        {"propose": "proposals[1] = Proposal((0, 4, 0, 0, 0))"},
        "proposes (0, 4, 0, 0, 0) as child 1, but 'digit1' cannot be (4,); it may be one of [0, 1, 2, 3].",
    ),
    "halves": (
        {"propose": "proposals[1] = Proposal((0.5, 0, 0, 0, 0))"},
        "proposes (0.5, 0, 0, 0, 0) as child 1; tokens are whole numbers.",
    ),
    "needless log-probabilities": (
        {"propose": "proposals[0] = Proposal((0,) * 5, (-1.0,) * 5)"},
        "proposes (0, 0, 0, 0, 0) as child 0 with log-probabilities, which only a PolicyController has; leave them "
        "out, or make it a subclass of automl.controllers.base.PolicyController.",
    ),
    "no log-probabilities": (
        {"base": "PolicyController", "propose": "proposals[0] = Proposal((0,) * 5)"},
        "proposes (0, 0, 0, 0, 0) as child 0 with 0 log-probabilities; there is one for each token.",
    ),
    "infinite": (
        {"base": "PolicyController", "propose": "proposals[0] = Proposal((0,) * 5, (-1.0, -np.inf, -1, -1, -1))"},
        "proposes (0, 0, 0, 0, 0) as child 0, and the log-probability of token 1 is -inf; it must be a finite number.",
    ),
    "error": (
        {"propose": "raise KeyError('gone')"},
        "raised KeyError in ask (line 15): 'gone'.",
    ),
    "no reason": ({"propose": "assert not draws"}, "raised AssertionError in ask (line 15)."),
    "global random numbers": (
        {"propose": "proposals[0] = Proposal(tuple(np.random.randint(0, 4, 5)))"},
        "draw random numbers with automl.controllers.keyed.stream(seed, number, attempt).",
    ),
    "no state": ({"state": "return {}"}, "returned {} from state, which returns a ControllerState, or None."),
    "no array": (
        {"state": "return ControllerState({'a': [1]}, {})"},
        "has [1] as the array 'a' of its state; arrays are NumPy arrays of numbers, and all else belongs to values.",
    ),
    "no JSON": (
        {"state": "return ControllerState({}, {'a': {1, 2}})"},
        "returned {'a': {1, 2}} as the values of its state, which is not JSON: Object of type set is not JSON "
        "serializable.",
    ),
    "NaN": (
        {"state": "return ControllerState({}, {'a': float('nan')})"},
        "returned {'a': nan} as the values of its state, which is not JSON: Out of range float values are not JSON "
        "compliant.",
    ),
}
SAID = "The controller broken.py:Mine "


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_that_shows_at_once_leaves_no_search(automl, folder, mistake):
    change, said = MISTAKES[mistake]
    (folder / "broken.py").write_text(BASE.format(**FINE | change))
    refused = automl("search", "s", *OURS, "--controller", "broken.py:Mine", "--children", "8").error
    assert refused.startswith(SAID) and refused.endswith(said), refused
    assert not (folder / "automl.db").exists()


LATE = {
    "propose": ({"late": 2, "propose": "proposals[0] = Proposal((9,) * 5)"}, "'digit0' cannot be (9,)"),
    "learn": (
        {"learn": "if self.told == 2: raise ValueError('no more')"},
        "raised ValueError in tell (line 20): no more",
    ),
    "figures": ({"learn": "if self.told == 2: return {'a': {1}}"}, "returned {'a': {1}} from tell, which is not JSON"),
    "state": ({"state": "return {} if self.told == 2 else None"}, "returned {} from state"),
}


@pytest.mark.parametrize("mistake", LATE)
def test_a_late_mistake_pauses_the_search_which_goes_on_once_it_is_mended(automl, folder, mistake):
    change, said = LATE[mistake]
    file = folder / "broken.py"
    file.write_text(BASE.format(**FINE | change))
    arguments = ("--controller", "broken.py:Mine", "--children", "16")
    refused = automl("search", "s", *OURS, *arguments).error
    assert refused.startswith(SAID) and said in refused
    shown = automl("show", "s", "--json").json
    assert shown["state"] == "paused" and shown["cause"] == refused
    # The step that failed wrote nothing: the second batch is trained, and not learned from.
    steps, _ = steps_of("s")
    assert [step.number for step in steps] == [0, 1]
    assert [(child.state, child.consumed_by) for child in children_of("s")] == [("trained", 1)] * 4 + [
        ("trained", None)
    ] * 4
    assert automl("resume", "s").error == refused  # the same again, and nothing lost
    file.write_text(BASE.format(**FINE))
    assert automl("resume", "s", "--accept-change").code == 0
    assert automl("search", "fine", *OURS, *arguments).code == 0
    assert digest_of("s") == digest_of("fine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def Mine(space, seed): pass", SAID + "is not a subclass of automl.controllers.base.Controller; make it one"),
        ("class Mine: pass", SAID + "is not a subclass of automl.controllers.base.Controller; make it one"),
        (
            "from automl.controllers.base import Controller\nclass Mine(Controller): pass",
            SAID + "raised TypeError in its constructor: Can't instantiate abstract class Mine",
        ),
        ("class Other: pass", "has no function 'Mine'; it has Other."),
        ("1 / 0", "does not run: ZeroDivisionError in line 1"),
    ],
)
def test_what_is_no_controller_is_refused(automl, folder, text, said):
    (folder / "broken.py").write_text(text)
    refused = automl("search", "s", *OURS, "--controller", "broken.py:Mine", "--children", "8").error
    assert said in refused
    assert not (folder / "automl.db").exists()
