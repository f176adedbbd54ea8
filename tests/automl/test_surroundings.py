"""The surroundings of a user's task: its module, its folder, its options."""

from __future__ import annotations

from pathlib import Path

import pytest

PARALLEL = """
import dataclasses, multiprocessing
from automl import Choice
from joblib import Parallel, delayed

@dataclasses.dataclass(frozen=True)
class Part:
    n: int

def space():
    n = yield Choice("n", (1, 2, 3, 4))
    return n

def double(part):
    assert __name__ == "parallel"
    return Part(2 * part.n)

def evaluate(spec):
    parts = Parallel(n_jobs=2)(delayed(double)(Part(n)) for n in range(spec))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        parts += pool.map(double, [Part(10)])
    return sum(part.n for part in parts)
"""


@pytest.mark.filterwarnings("ignore")  # of joblib's and multiprocessing's processes
@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_a_file_defines_can_be_sent_to_other_processes(automl, folder, workers):
    (folder / "parallel.py").write_text(PARALLEL)
    files = ("--space", "parallel.py:space", "--task", "parallel.py:evaluate", "--controller", "random")
    assert automl("search", "s", *files, "--children", "2", "--workers", workers).code == 0
    for child in automl("top", "s", "--json").json:
        assert child["reward"] == 20 + sum(2 * n for n in range(child["spec"]))


@pytest.mark.parametrize("name", ["requests.py", "random.py", "automl.py"])
def test_a_file_with_the_name_of_another_module_is_refused_before_anything_is_stored(automl, mine, folder, name):
    mine.rename(folder / name)
    files = ("--space", f"{name}:space", "--task", f"{name}:evaluate", "--controller", "random")
    assert automl("search", "s", *files, "--children", "1", "--workers", "0").error.endswith(
        "so that another process would import it instead; rename the file."
    )
    assert not Path("automl.db").exists()


EPOCHS = """
from automl import Choice

def space():
    a = yield Choice("a", tuple(range(200)))
    return {"a": a}

def with_epochs(spec, epochs, report):
    for epoch in range(1, epochs + 1):
        report(epoch, acc=spec["a"] / 200 * epoch / epochs)
    return {"acc": spec["a"] / 200, "told": epochs}

def without(spec):
    return {"acc": spec["a"] / 200}
"""
FEW = ("--controller", "random", "--workers", "0", "--children", "3")


@pytest.fixture
def epochs(folder):
    """Flags of a search over a file with tasks that require a number of epochs, or take none."""
    (folder / "mine.py").write_text(EPOCHS)
    return lambda task: ("--space", "mine.py:space", "--task", f"mine.py:{task}", *FEW)


def test_training_again_keeps_the_constants_of_a_users_task(automl, epochs):
    asked = (*epochs("with_epochs"), "--maximize", "acc")
    assert automl("search", "s", *asked, "--set", "task.epochs=5").code == 0
    told = [run["metrics"]["told"] for run in automl("train", "s", "--seeds", "1", "--json").json]
    told += [run["metrics"]["told"] for run in automl("train", "s", "--seeds", "1", "--json", "--set", "epochs=2").json]
    assert told == [5, 2]
    assert automl("resume", "s", "--children", "4", "--set", "task.epochs=7").code == 0
    assert automl("train", "s", "--seeds", "1", "--json").json[0]["metrics"]["told"] == 7


def test_a_task_that_requires_epochs_receives_them_or_is_refused(automl, epochs):
    assert automl("search", "s", *epochs("with_epochs"), "--maximize", "acc").error == (
        "The task mine.py:with_epochs needs 'epochs'; set it with --set task.epochs=N, or give the parameter a default."
    )
    assert not Path("automl.db").exists()


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "null", "true"])
def test_a_number_of_epochs_that_is_none(automl, epochs, value):
    refused = automl("search", "s", *epochs("with_epochs"), "--set", f"task.epochs={value}").error
    assert "epochs" in refused and not Path("automl.db").exists()


def test_options_without_effect_are_refused(automl, epochs, folder):
    def refused(*flags):
        told = automl("search", "s", *flags).error
        assert not Path("automl.db").exists()
        return told

    own = epochs("without")
    none = (
        "task.epochs has no effect on mine.py:without, which has no parameter 'epochs'; add the parameter, or drop the "
    )
    assert refused(*own, "--set", "task.epochs=5").startswith(none)
    assert refused(*own, "--recipe", "quick") == "A task of your own has no recipes; drop the recipe 'quick'."
    for flags in (("--precision", "bfloat16"), ("--xla",)):
        assert refused(*own, *flags) == (
            f"{flags[0]} has no effect on a task of your own, which does its own training; drop it."
        )
        assert refused("--space", "update-rule", *flags) == (
            f"{flags[0]} has no effect on update rules, which are judged in float32 on one device; drop it."
        )
    for task in (own, ("--task", "digits")):
        assert "--data-dir has no effect on the task" in refused(*task, "--data-dir", ".")
    assert refused("--space", "joint", "--set", "task.learning_rate=0.1") == (
        "task.learning_rate has no effect on children of this space, which have their own update rule; drop it."
    )
    cells = ("--space", "recurrent-cell", "--recipe", "small", "--set", "task.parameters=100000")
    assert refused(*cells) == (
        "task.parameters has no effect where task.units is 200; drop it, or add --set task.units=null."
    )
    (folder / "dense.py").write_text(
        "from automl import Choice\nclass Dense:\n    def build(self, shape, classes): pass\n"
        "def space():\n    yield Choice('a', (1, 2))\n    return Dense()\n"
    )
    assert refused("--space", "dense.py:space", "--task", "digits", "--xla").startswith(
        "--xla has no effect on Dense, which has no method network"
    )


def test_options_without_effect_are_refused_later_too(automl, epochs):
    assert automl("search", "s", *epochs("without"), "--maximize", "acc").code == 0
    for command in (("resume", "s", "--children", "4", "--set", "task.epochs=5"), ("train", "s", "--set", "epochs=5")):
        assert automl(*command).error.startswith("task.epochs has no effect on mine.py:without, which has no parameter")
    assert "--data-dir has no effect" in automl("resume", "s", "--children", "4", "--data-dir", ".").error
    assert (
        automl("train", "s", "--recipe", "full").error == "A task of your own has no recipes; drop the recipe 'full'."
    )
    assert len(automl("show", "s", "--json").json["segments"]) == 1


def test_naming_the_goal_at_a_resume(automl, epochs):
    paused = automl("search", "s", *epochs("without"))
    assert paused.code == 3 and "with --minimize or --maximize" in paused.out
    assert automl("resume", "s", "--minimize", "acc", "--maximize", "acc").error.startswith(
        "--minimize and --maximize excl"
    )
    assert automl("resume", "s", "--maximize", "acc").code == 0
    shown = automl("show", "s", "--json").json
    goal = {"metric": "acc", "minimize": False}
    assert shown["settings"]["task"]["goal"] == shown["segments"][1]["changes"]["task.goal"] == goal
    assert {"trained": 3, "failed": 0}.items() <= shown["children"].items()
    for child in automl("top", "s", "--json").json:
        assert child["reward"] == child["metrics"]["acc"] and child["number"] < 3
    assert automl("resume", "s", "--children", "4", "--maximize", "acc").code == 0  # the goal that it has already
    assert automl("resume", "s", "--children", "5", "--minimize", "acc").error == (
        "4 children of 's' were trained with --maximize acc, and rewards would not be comparable; start a new search "
        "to use another metric."
    )


def test_a_goal_named_after_children_have_rewards(automl, mine):
    from command_line import OURS

    assert automl("search", "s", *OURS, "--workers", "0", "--children", "1").code == 0
    assert automl("resume", "s", "--children", "2", "--maximize", "worth").error == (
        "1 child of 's' was trained with the reward that the task returned, and rewards would not be comparable; start "
        "a new search to use another metric."
    )
