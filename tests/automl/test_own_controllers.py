"""A user's controller: in a file outside the packages, through the command line and from Python."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import own_controllers
import pytest
from command_line import MINE

import automl as face
from automl.child_trainers.experiment import Experiment
from automl.child_trainers.function_task import FunctionTask
from automl.child_trainers.user_files import UserFile
from automl.controllers.base import Draw, Proposal, Result
from automl.controllers.checked import CheckedController, ControllerError
from automl.controllers.random_search import RandomSearch
from automl.db.store import Store
from automl.preparation import make_controller
from automl.search_spaces.space import Space

# The file as a user writes it; the first controller logs what it sees beside the file.
TEXT = (
    Path(own_controllers.__file__).read_text()
    + """
import json
from pathlib import Path

class Logged(Evolution):
    def propose(self, draws, pending):
        in_flight = [[one.number, list(one.tokens)] for one in pending]
        for draw in draws:
            log("pending", [draw.number, in_flight])
        return super().propose(draws, pending)

    def learn(self, results):
        for result in results:
            log("told", [result.number, result.reward, result.state, result.fault, dict(result.metrics),
                         result.cost.seconds is not None, result.origin, result.stopped_at])
        return super().learn(results)

def log(name, entry):
    with Path(__file__).with_name(name + ".jsonl").open("a") as file:
        file.write(json.dumps(entry) + chr(10))
"""
)
KINDS = ("climbing.py:Logged", "climbing.py:Climber")
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--batch-size", "4", "--workers", "0")


@pytest.fixture(autouse=True)
def files(mine, folder):
    (folder / "climbing.py").write_text(TEXT)


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
    assert automl("search", "s", *OURS, "--controller", "climbing.py:Logged", "--children", "8").code == 0
    steps, last = steps_of("s")
    assert last.blob is None
    assert [step.stats.get("parents") for step in steps] == [None, 4, 8]
    assert all(child.log_probs == [] for child in children_of("s"))
    shown = automl("show", "s", "--json").json
    assert "sha256" in shown["settings"]["controller"]["file"] and "text" not in shown["settings"]["controller"]["file"]
    assert "controller climbing.py:Logged" in automl("show", "s").out


def test_a_replay_has_all_batches_once_and_in_order(automl, folder):
    arguments = ("--controller", "climbing.py:Logged", "--children", "10")
    assert automl("search", "s", *OURS, *arguments).code == 0
    assert numbers_told(folder) == list(range(8))
    (folder / "told.jsonl").unlink()
    assert automl("resume", "s", "--children", "16").code == 0
    assert numbers_told(folder) == [*range(8), *range(8, 16)]


def numbers_told(folder):
    return [json.loads(line)[0] for line in (folder / "told.jsonl").read_text().splitlines()]


def test_a_controller_sees_the_children_in_flight(automl, folder):
    arguments = ("--controller", "climbing.py:Logged", "--replicas", "3", "--children", "16")
    assert automl("search", "s", *OURS, *arguments).code == 0
    tokens = {child.number: child.tokens for child in children_of("s")}
    seen = [json.loads(line) for line in (folder / "pending.jsonl").read_text().splitlines()]
    del seen[: 3 * 8]  # draws before the search is written
    for number, pending in seen:
        batch = number // 4
        assert [one for one, _ in pending] == list(range(max(0, 4 * (batch - 2)), 4 * batch))
        assert all(tokens[one] == of_child for one, of_child in pending)
    # After a resume it sees the same.
    (folder / "pending.jsonl").unlink()
    assert automl("resume", "s", "--children", "20").code == 0
    number, pending = json.loads((folder / "pending.jsonl").read_text().splitlines()[0])
    assert number == 28 and [one for one, _ in pending] == list(range(20, 28))


def test_a_controller_receives_all_facts_of_a_child(automl, mine, folder):
    mine.write_text(MINE.replace("    worth =", "    if sum(spec) % 2:\n        raise ValueError('no')\n    worth ="))
    arguments = ("--controller", "climbing.py:Logged", "--children", "8", "--keep-going")
    assert automl("search", "s", *OURS, *arguments).code == 0
    told = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
    assert {entry[2] for entry in told} == {"trained", "failed"}
    for _, reward, state, fault, metrics, has_seconds, origin, stopped_at in told:
        assert (fault == "raised") == (state == "failed")
        assert (metrics.get("worth") == reward) == (state == "trained")
        assert (has_seconds, origin, stopped_at) == (True, "drawn", None)


def test_options_are_those_of_the_class(automl):
    arguments = ("search", "s", *OURS, "--controller", "climbing.py:Logged", "--children", "4")
    wrong = automl(*arguments, "--set", "controller.parent=2")
    assert wrong.error == "There is no controller option called 'parent'; there is parents."
    assert automl(*arguments, "--set", "controller.parents=2").code == 0
    assert automl("resume", "s", "--set", "controller.parents=1", "--children", "8").code == 0
    wrong = automl(*arguments[:1], "t", *arguments[2:], "--controller-preset", "paper")
    assert wrong.error == "A controller of your own has no presets; drop the preset 'paper'."


def test_a_changed_or_moved_file_is_named_and_accepted(automl, folder):
    arguments = ("--controller", "climbing.py:Climber", "--children", "4")
    assert automl("search", "s", *OURS, *arguments).code == 0
    file = folder / "climbing.py"
    file.write_text(TEXT + "\n")
    assert "accept the new one with --accept-change" in automl("resume", "s", "--children", "8").error
    assert automl("resume", "s", "--children", "8", "--accept-change").code == 0
    file.rename(folder / "other.py")
    assert "--controller" in automl("resume", "s", "--children", "12").error
    assert automl("resume", "s", "--children", "12", "--controller", "other.py:Climber").code == 0
    assert automl("resume", "s", "--children", "16").code == 0


def test_a_controller_of_another_person_is_not_run(automl, tmp_path, monkeypatch):
    assert automl("search", "s", *OURS, "--controller", "climbing.py:Climber", "--children", "4").code == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    approve = ("resume", "s", "--children", "8", "--space", "mine.py:space", "--task", "mine.py:evaluate")
    assert "--controller" in automl(*approve).error
    assert automl(*approve, "--controller", "climbing.py:Climber").code == 0


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
    from climbing import Climber

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
MISTAKES = {  # the mistake, and the end of the sentence about it
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
        "proposes (0, 0, 0, 0, 0) as child 0, but the log-probability of token 1 is -inf; it must be a finite number.",
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
        "has [1] as the array 'a' of its state; arrays are NumPy arrays of numbers, and everything else belongs in "
        "values.",
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


@pytest.fixture
def checked(folder):
    """A controller from a file, checked as in a search."""

    def make(**change):
        (folder / "broken.py").write_text(BASE.format(**FINE | change))
        file = UserFile.read("broken.py:Mine")
        kind, space = file.load(), Space(UserFile.read("mine.py:space").load())
        return CheckedController(
            lambda: kind(space, seed=0), space, seed=0, name="The controller broken.py:Mine", path=file.path
        )

    return make


DRAWS = [Draw(number) for number in range(8)]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_in_one_sentence(checked, mistake):
    change, said = MISTAKES[mistake]
    controller = checked(**change)
    with pytest.raises(ControllerError) as error:
        controller.check(DRAWS)
    assert str(error.value).startswith(SAID) and str(error.value).endswith(said)


def test_a_mistake_that_shows_at_once_leaves_no_search(automl, folder):
    change, said = MISTAKES["range"]
    (folder / "broken.py").write_text(BASE.format(**FINE | change))
    refused = automl("search", "s", *OURS, "--controller", "broken.py:Mine", "--children", "8").error
    assert refused == SAID + said
    assert not (folder / "automl.db").exists()


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        ("raise ValueError('no.')", "raised ValueError in tell (line 20): no."),
        (
            "return {'a': {1}}",
            "returned {'a': {1}} from tell, which is not JSON: Object of type set is not JSON serializable.",
        ),
        ("return None", "returned None from tell, which returns a dict."),
    ],
)
def test_a_mistake_in_learning_is_reported_in_one_sentence(checked, learn, said):
    controller = checked(learn=learn)
    controller.check(DRAWS)
    with pytest.raises(ControllerError) as error:
        controller.tell([Result(0, (0, 0, 0, 0, 0), (), 1.0)])
    assert str(error.value) == SAID + said


def test_what_a_controller_proposes_becomes_plain_numbers(checked):
    (proposal,) = checked(propose="proposals[0] = Proposal(np.array([1, 2, 3, 0, 1]))").ask(DRAWS[:1])
    assert proposal == Proposal((1, 2, 3, 0, 1)) and type(proposal.tokens[0]) is int
    (proposal,) = checked(
        base="PolicyController", propose="proposals[0] = Proposal([1] * 5, [np.float32(-1)] * 5)"
    ).ask(DRAWS[:1])
    assert proposal.log_probs == (-1.0,) * 5 and type(proposal.log_probs[0]) is float


LATE = {
    "propose": ({"late": 2, "propose": "proposals[0] = Proposal((9,) * 5)"}, "'digit0' cannot be (9,)"),
    "state": ({"state": "return {} if self.told == 2 else None"}, "returned {} from state"),
}


@pytest.mark.parametrize("mistake", LATE)
def test_a_late_mistake_pauses_the_search_until_it_is_fixed(automl, folder, mistake):
    change, said = LATE[mistake]
    file = folder / "broken.py"
    file.write_text(BASE.format(**FINE | change))
    arguments = ("--controller", "broken.py:Mine", "--children", "16")
    refused = automl("search", "s", *OURS, *arguments).error
    assert refused.startswith(SAID) and said in refused
    shown = automl("show", "s", "--json").json
    assert shown["state"] == "paused" and shown["cause"] == refused
    # The failed step wrote nothing: the second batch is trained, but the controller has not learned from it.
    steps, _ = steps_of("s")
    assert [step.number for step in steps] == [0, 1]
    assert [(child.state, child.consumed_by) for child in children_of("s")] == [("trained", 1)] * 4 + [
        ("trained", None)
    ] * 4
    assert automl("resume", "s").error == refused  # the same mistake again, and nothing is lost
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
def test_an_object_that_is_not_a_controller_is_refused(folder, text, said):
    (folder / "broken.py").write_text(text)
    chosen = {
        "name": "broken.py:Mine",
        "preset": None,
        "options": {},
        "file": UserFile.read("broken.py:Mine").to_json(),
    }
    experiment = Experiment(Space(UserFile.read("mine.py:space").load()), FunctionTask(lambda spec: 0.0))
    with pytest.raises(ValueError) as error:
        make_controller({"controller": chosen}, experiment, seed=0)
    assert said in str(error.value) and str(error.value).count(". ") == 0
