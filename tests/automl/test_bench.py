"""Comparing controllers, from the command line and from Python."""

import json
import os
import signal

import numpy as np
import pytest
from command_line import children_of, lives, running, wait_until

import automl as package
from automl.benching.plan import Competitor, Plan
from automl.benching.searches import History
from automl.benching.summary import best_curve, costs_of, incumbent_values, mean_of, rows_of

NOISY = ("bench", "--space", "landscape", "--preset", "noisy")
ONE_JOB = ("--seeds", "2", "--budgets", "4,9", "--jobs", "1", "--to", "b.json")

OWN = """
from automl.controllers.random_search import RandomSearch

class First(RandomSearch):
    def __init__(self, space, *, seed, shift=0):
        super().__init__(space, seed=seed + shift)

    def state(self):
        return None
"""


def found_of(rewards, values=None, **fields):
    return History(
        rewards, values, **{"exhausted": False, "seconds": 2.0, "controller_seconds": 0.5, "timed": 4} | fields
    )


def test_curves_of_the_best_so_far():
    assert best_curve(found_of([1.0, 3.0, 2.0, 5.0]), 3).tolist() == [1, 3, 3]
    assert best_curve(found_of([1.0, 3.0]), 4).tolist() == [1, 3, 3, 3]  # an exhausted space


def test_the_value_of_the_child_that_looks_best_counts_and_not_the_best_value():
    noisy = found_of([1.0, 4.0, 2.0, 4.5], values=[1.0, 0.5, 3.0, 2.0])
    assert incumbent_values(noisy, 5).tolist() == [1.0, 0.5, 0.5, 2.0, 2.0]
    assert incumbent_values(found_of([1.0, 4.0, 2.0]), 3).tolist() == [1, 4, 4]


def test_an_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    means = [mean_of(generator.normal(5.0, 2.0, size=30)) for _ in range(200)]
    assert 0.88 < np.mean([one.low <= 5.0 <= one.high for one in means]) < 0.99
    assert mean_of([3.0]) == package.benching.summary.Mean(3.0, None, None)


def test_rows_are_by_budget_and_the_best_comes_first():
    searches = {"slow": [found_of([1.0, 1.0, 3.0])] * 2, "fast": [found_of([2.0, 2.0, 2.0])] * 2}
    rows = rows_of(searches, (1, 3), 3.0)
    assert [(row.budget, row.competitor, row.regret.mean, row.optimal) for row in rows] == [
        (1, "fast", 1.0, 0.0),
        (1, "slow", 2.0, 0.0),
        (3, "slow", 0.0, 1.0),
        (3, "fast", 1.0, 0.0),
    ]
    assert [row.best.mean for row in rows_of(searches, (3,), None)] == [3.0, 2.0]
    cost = costs_of(searches)[0]
    assert (cost.milliseconds, cost.children_per_second) == (125.0, 2.0)
    assert costs_of({"a": [found_of([1.0], timed=0)]})[0].milliseconds is None


def test_competitors_are_read():
    assert Competitor.parse("ppo") == Competitor("ppo", "ppo")
    assert Competitor.parse("reinforce:paper") == Competitor("reinforce:paper", "reinforce", "paper")
    assert Competitor.parse("a=reinforce:paper") == Competitor("a", "reinforce", "paper")
    assert Competitor.parse("mine.py:First") == Competitor("mine.py:First", "mine.py:First")
    plan = Plan.make(
        "a=random,ppo", budgets="9,4,9", seeds=1, set=["ppo.clip=0.1", "task.instance=1"], space="landscape"
    )
    assert plan.budgets == (4, 9)
    assert plan.competitors[1].options == ("clip=0.1",)
    assert plan.options_of(plan.competitors[1])["set"] == ("task.instance=1", "controller.clip=0.1")
    names = {Competitor.parse(text).search_name(3) for text in ("a:b", "a-b", "a.b=a")}
    assert len(names) == 3


def test_a_bench_is_a_table_a_file_and_a_picture(automl, folder):
    pytest.importorskip("matplotlib")
    ran = automl(*NOISY, "--controllers", "random,again=random", *ONE_JOB, "--plot", "b.svg")
    assert ran.code == 0, ran.error
    assert max(map(len, ran.out.splitlines())) <= 80
    assert (
        "landscape (noisy) on synthetic, optimum 4.8503\n"
        "Mean of 2 seeds, with its 95 % confidence interval (Student's t)\n" in ran.out
    )
    assert "<svg" in (folder / "b.svg").read_text() and ran.out.endswith("\nThe curves are in b.svg.\n")
    stored = json.loads((folder / "b.json").read_text())
    assert [row["budget"] for row in stored["rows"]] == [4, 4, 9, 9]
    searches = stored["searches"]
    assert searches["random"]["0"]["rewards"] == searches["again"]["0"]["rewards"]  # the same search
    assert searches["random"]["0"]["rewards"] != searches["random"]["1"]["rewards"]
    one = searches["random"]["1"]
    assert len(one["rewards"]) == len(one["values"]) == 9 and one["rewards"] != one["values"]
    listed = automl("list", "--store", "b.json.db", "--json").json
    assert len(listed) == 4
    regret = np.mean([4.850259970 - incumbent_values(History(**searches["random"][s]), 9)[-1] for s in "01"])
    assert stored["rows"][2]["regret"]["mean"] == pytest.approx(regret)


def test_a_bench_goes_on_and_repeats_nothing(automl, folder):
    assert automl(*NOISY, "--controllers", "random", *ONE_JOB).code == 0
    before = json.loads((folder / "b.json").read_text())["searches"]["random"]
    more = (*NOISY, "--controllers", "random,other=random", "--seeds", "3", "--budgets", "9", "--jobs", "1")
    ran = automl(*more, "--to", "b.json")
    assert ran.code == 0, ran.error
    assert [line.split()[1] for line in ran.out.splitlines() if "/6 " in line] == [
        "other,",
        "other,",
        "random,",
        "other,",
    ]
    stored = json.loads((folder / "b.json").read_text())["searches"]
    assert {seed: stored["random"][seed] for seed in before} == before
    assert stored["random"].keys() == {"0", "1", "2"}


def test_larger_budgets_go_on_with_the_same_searches(automl, folder):
    assert automl(*NOISY, "--controllers", "random", *ONE_JOB).code == 0
    before = json.loads((folder / "b.json").read_text())["searches"]["random"]["0"]["rewards"]
    larger = (*NOISY, "--controllers", "random", "--seeds", "1", "--budgets", "20", "--jobs", "1", "--to", "b.json")
    assert automl(*larger).code == 0
    after = json.loads((folder / "b.json").read_text())["searches"]["random"]["0"]
    assert after["rewards"][:9] == before and len(after["rewards"]) == 20 and after["timed"] == 11
    smaller = automl(*NOISY, "--controllers", "random", *ONE_JOB)
    assert smaller.code == 0 and "/2 " not in smaller.out  # nothing is searched again


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--set", "task.instance=1"), "b.json is a bench with other settings of the searches: set was None and is"),
        (("--batch-size", "4"), "b.json is a bench with other settings of the searches: batch_size was None and is 4"),
        (
            ("--controllers", "random=ppo"),
            "with other settings of random: controller was 'random' and is 'ppo'; put it",
        ),
    ],
)
def test_other_settings_are_refused(automl, flags, sentence):
    assert automl(*NOISY, "--controllers", "random", *ONE_JOB).code == 0
    ran = automl(*NOISY, "--controllers", "random", *ONE_JOB, *flags)
    assert ran.code == 1 and sentence in ran.error


def test_another_table_is_refused(automl, folder):
    table = ("--task", "table:t.csv", "--maximize", "acc")
    (folder / "t.csv").write_text("op,acc\na,1\nb,2\n")
    ran = automl("bench", *table, "--controllers", "random", *ONE_JOB)
    assert ran.code == 0, ran.error  # the space has fewer children than the budgets
    assert "100%" in ran.out
    (folder / "t.csv").write_text("op,acc\na,1\nb,3\n")
    assert (
        "other settings of the searches: data was" in automl("bench", *table, "--controllers", "random", *ONE_JOB).error
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--controllers", "random,random"), "--controllers names 'random' twice; give one another label"),
        (("--controllers", "rand"), "There is no controller called 'rand'; there is random"),
        (("--controllers", "random:paper"), "There is no controller preset called 'paper'; there is default."),
        (("--controllers", "random,"), "--controllers has ''; write NAME, NAME:PRESET or LABEL=NAME"),
        (("--budgets", "25,few"), "--budgets is '25,few'; write numbers of children"),
        (("--budgets", "0,5"), "--budgets is '0,5'"),
        (("--seeds", "0"), "--seeds is 0; it must be a whole number from 1"),
        (("--jobs", "0"), "--jobs is 0; it must be a whole number from 1"),
        (("--set", "entropy=0"), "--set 'entropy=0' is not of the form GROUP.NAME=VALUE"),
        (("--set", "rando.x=0"), "There is no group of options called 'rando'; there is random, "),
        (("--set", "random.x=0"), "There is no controller option called 'x'"),
        (("--to", "none/b.json"), "The folder none for b.json does not exist"),
        (("--plot", "b.txt"), "is not an image file"),
        (("--early-stop", "median"), "report no metrics per epoch"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_searched(automl, folder, flags, sentence):
    pytest.importorskip("matplotlib")
    ran = automl(*NOISY, "--controllers", "random", *ONE_JOB, *flags)
    assert ran.code == 1 and sentence in ran.error
    assert not list(folder.glob("b.json*"))


def test_a_store_without_its_file_is_not_taken_for_a_new_bench(automl, folder):
    assert automl(*NOISY, "--controllers", "random", *ONE_JOB).code == 0
    (folder / "b.json").unlink()
    ran = automl(*NOISY, "--controllers", "random", *ONE_JOB, "--set", "task.instance=1")
    assert "b.json.db has the searches of a bench whose file b.json is gone; delete it" in ran.error


def test_a_file_that_is_no_bench(automl, folder):
    (folder / "b.json").write_text('{"trials": {}}')
    ran = automl(*NOISY, "--controllers", "random", *ONE_JOB)
    assert "b.json is not the file of a bench of this version of automl; name another file with --to." in ran.error


def test_a_bench_from_python_with_processes_and_a_controller_of_one_s_own(folder):
    (folder / "mine.py").write_text(OWN)
    told = []
    result = package.bench(
        space="landscape",
        preset="forty",
        controllers=["random", "mine.py:First", "shifted=mine.py:First"],
        set=["shifted.shift=1"],
        budgets=[5],
        seeds=2,
        jobs=2,
        progress=lambda competitor, seed, found, done, count: told.append((competitor.label, seed, count)),
    )
    assert sorted(told) == sorted((label, seed, 6) for label in result.searches for seed in (0, 1))
    rewards = {label: [one.rewards for one in found] for label, found in result.searches.items()}
    assert rewards["random"] == rewards["mine.py:First"] and rewards["shifted"][0] == rewards["random"][1]
    assert {row.competitor for row in result.rows} == set(rewards)
    assert all(cost.milliseconds > 0 and cost.children_per_second > 0 for cost in result.costs)
    assert not list(folder.glob("*.db"))
    with pytest.raises(ValueError, match="There is no option of a bench called 'children'"):
        package.bench(controllers="random", children=3)


def test_a_bench_that_is_killed_goes_on(automl, folder):
    """Killed in the middle of a search, it goes on with this search and gives what it would have given."""
    slow = """
import time

def slow(spec):
    time.sleep(0.2)
    return float(sum(map(ord, "".join(spec["values"].values()))))
"""
    (folder / "slow.py").write_text(slow.replace('spec["values"]', "spec.values"))
    command = (
        "bench",
        "--space",
        "landscape",
        "--preset",
        "noisy",
        "--task",
        "slow.py:slow",
        "--controllers",
        "random",
    )
    budget = ("--seeds", "2", "--budgets", "12", "--jobs", "2")
    with running(*command, *budget, "--to", "b.json", folder=folder) as process:
        wait_until(lambda: trained(automl, folder) >= 3, "some children", process)
        begun = children_of(process.process.pid)
        os.kill(process.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(lives(pid) for pid in begun), "the end of its processes")
    assert trained(automl, folder) < 24
    ran = automl(*command, *budget, "--to", "b.json")
    assert ran.code == 0, ran.error
    assert automl(*command, *budget, "--to", "whole.json").code == 0
    one, other = (json.loads((folder / name).read_text())["searches"]["random"] for name in ("b.json", "whole.json"))
    assert [one[seed]["rewards"] for seed in "01"] == [other[seed]["rewards"] for seed in "01"]


def trained(automl, folder):
    if not (folder / "b.json.db").exists():
        return 0
    ran = automl("list", "--store", "b.json.db", "--json")
    return sum(one["num_trained"] for one in ran.json) if ran.code == 0 else 0


def test_a_search_that_fails_ends_the_bench_with_its_cause(automl, folder):
    (folder / "bad.py").write_text("def bad(spec):\n    raise ValueError('no data')\n")
    ran = automl("bench", "--space", "landscape", "--task", "bad.py:bad", "--controllers", "random", *ONE_JOB)
    assert ran.code == 1 and "b.json.db ended after 0 of 9 children" in ran.error and "no data" in ran.error
