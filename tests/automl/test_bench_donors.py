"""Benches whose controllers learn from earlier searches: `--set LABEL.warm-start=SEARCH[@STORE]`."""

import contextlib
import json
import shutil

import pytest
from command_line import run_automl

import automl as package
from automl.benching.plan import Plan
from automl.paths import open_store

SPACE = ("--space", "landscape", "--preset", "noisy")
FEW = ("controller.uniform=40", "controller.mutations=40")
BENCH = (
    *("bench", *SPACE, "--controllers", "cold=surrogate,warm=surrogate", "--batch-size", 4),
    *(part for label in ("cold", "warm") for one in FEW for part in ("--set", one.replace("controller", label))),
)
WARM = ("--set", "warm.warm-start=first@old.db")
TWO = ("--seeds", 2, "--budgets", "4,8")


@pytest.fixture
def first(automl):
    """The store `old.db` with the earlier search `first`."""
    options = ("--task", "synthetic", "--controller", "random", "--workers", 0, "--children", 24)
    ran = automl("search", "first", *SPACE, *options, "--store", "old.db")
    assert ran.code == 0, ran.err


def read(path):
    return json.loads(path.read_text())


def test_donors_of_a_competitor_are_read():
    options = {"budgets": "9", "seeds": 1, "space": "landscape"}
    plan = Plan.make("a=ppo,b=ppo", set=["b.warm-start=one", "b.clip=0.1", "b.warm_start=two@x=y.db"], **options)
    assert [one.warm_start for one in plan.competitors] == [(), ("one", "two@x=y.db")]
    assert plan.competitors[1].options == ("clip=0.1",)
    assert plan.options_of(plan.competitors[1])["warm_start"] == ("one@automl.db", "two@x=y.db")


@pytest.mark.usefixtures("first")
def test_a_competitor_with_donors_is_the_search_with_them(automl, folder):
    ran = automl(*BENCH, *WARM, *TWO, "--jobs", 1, "--to", "b.json")
    assert ran.code == 0, ran.error
    searches = read(folder / "b.json")["searches"]
    options = [part for one in FEW for part in ("--set", one)]
    options += ["--task", "synthetic", "--controller", "surrogate", "--workers", 0, "--batch-size", 4]
    for name, more in (("cold", ()), ("warm", ("--warm-start", "first@old.db"))):
        ran = automl("search", name, *SPACE, *options, "--seed", 1, "--children", 8, *more)
        assert ran.code == 0, ran.error
        with contextlib.closing(open_store("automl.db")) as store:
            rewards = [child.reward for child in store.children(store.search(name).id) if child.state == "trained"]
        assert searches[name]["1"]["rewards"] == rewards
    assert searches["warm"]["1"]["rewards"] != searches["cold"]["1"]["rewards"]


@pytest.mark.usefixtures("first")
def test_more_jobs_give_the_same_searches(folder):
    options = {"space": "landscape", "preset": "noisy", "controllers": "surrogate,warm=surrogate", "batch_size": 4}
    options |= {"set": ["warm.warm-start=first@old.db"], "seeds": 2, "budgets": [6]}
    one, two = (package.bench(**options, jobs=jobs).searches for jobs in (1, 2))
    for label in ("surrogate", "warm"):
        assert [history.rewards for history in one[label]] == [history.rewards for history in two[label]]


def test_with_one_job_tensorflow_has_the_threads_of_a_job(folder):
    """The check of the plan imports TensorFlow, which keeps the number of threads that it starts with."""
    options = ("--controllers", "reinforce", "--seeds", "1", "--budgets", "2", "--jobs", "1")
    ran = run_automl("bench", *SPACE, *options, folder=folder)
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.usefixtures("first")
def test_a_bench_goes_on_with_the_same_donors_only(automl, folder):
    assert automl(*BENCH, *WARM, *TWO, "--jobs", 1, "--to", "b.json").code == 0
    before = read(folder / "b.json")
    (identity,) = before["controllers"]["warm"]["warm-start"]
    assert identity.startswith("first (24 children, sha256 ") and "warm-start" not in before["controllers"]["cold"]
    # A store that has moved has the same content.
    shutil.copy("old.db", "moved.db")
    more = ("--seeds", 3, "--budgets", "4,8", "--jobs", 1, "--to", "b.json")
    ran = automl(*BENCH, "--set", "warm.warm-start=first@moved.db", *more)
    assert ran.code == 0, ran.error
    assert {seed: read(folder / "b.json")["searches"]["warm"][seed] for seed in "01"} == before["searches"]["warm"]
    ran = automl(*BENCH, *more)
    assert ran.error == (
        f"b.json is a bench with other settings of warm: warm-start was ['{identity}'] and is None; put it back, or "
        "name another file with --to."
    )
    assert automl("resume", "first", "--children", 30, "--store", "old.db").code == 0
    ran = automl(*BENCH, *WARM, *more)
    assert ran.error.startswith(
        f"b.json is a bench with other settings of warm: warm-start was ['{identity}'] and is ['first (30 children, "
    )


@pytest.mark.usefixtures("first")
def test_a_search_that_learned_from_another_donor_is_not_taken_for_the_benchs(automl, folder):
    """As when an earlier search continues while the bench runs."""
    assert automl(*BENCH, *WARM, *TWO, "--jobs", 1, "--to", "b.json").code == 0
    assert automl("resume", "first", "--children", 30, "--store", "old.db").code == 0
    stored = read(folder / "b.json")
    del stored["controllers"]["warm"]
    (folder / "b.json").write_text(json.dumps(stored))
    ran = automl(*BENCH, *WARM, "--seeds", 2, "--budgets", "12", "--jobs", 1, "--to", "b.json")
    assert ran.code == 1
    assert "learned from first (24 children, sha256 " in ran.err
    assert "and the bench began with first (30 children, sha256 " in ran.err


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--set", "warm.warm-start=nope@old.db"),
            "--set warm.warm-start cannot read the search 'nope': There is no search called 'nope' in "
            "sqlite:///old.db; it has first.",
        ),
        (
            ("--set", "warm.warm-start=first"),
            "--set warm.warm-start cannot read the search 'first': there is no store automl.db; write SEARCH@STORE "
            "with the file of its store.",
        ),
        (
            ("--set", "warm.warm-start="),
            "--set warm.warm-start '' is not of the form SEARCH or SEARCH@STORE, where STORE is a file or a database "
            "URL, for example first@old.db.",
        ),
        (
            (*WARM, *WARM),
            "--set warm.warm-start names the search 'first' of sqlite:///old.db twice; name it once.",
        ),
        (
            (*WARM, "--controllers", "cold=surrogate,warm=random"),
            "The controller random does not learn from earlier searches; drop --set warm.warm-start, or choose "
            "surrogate, or reinforce or ppo with a reward model (option candidates above 0).",
        ),
        (
            (*WARM, "--preset", "links"),
            "--set warm.warm-start: this space has no child of the search 'first': the decision 'layer0/operation' has "
            "no answer there (24 of 24 trained children); name a search of the same or an overlapping space.",
        ),
    ],
)
def test_a_bad_donor_is_found_before_anything_is_searched(automl, folder, flags, sentence):
    bench = BENCH if "--controllers" not in flags else BENCH[: BENCH.index("--set")]
    ran = automl(*bench, *TWO, *flags, "--to", "b.json")
    assert ran.error == sentence
    assert not list(folder.glob("b.json*"))
