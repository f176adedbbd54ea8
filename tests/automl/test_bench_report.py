"""The numbers that a bench reports, and the code that it compares them under."""

import json

import numpy as np
import pytest

import automl as package
from automl.benching import code, file
from automl.benching.searches import History
from automl.benching.summary import Mean, leads_of, mean_of, rows_of, top_mean

BENCH = ("bench", "--space", "landscape", "--preset", "noisy", "--jobs", "1", "--to", "b.json")


def found_of(rewards, exhausted=False):
    return History(list(rewards), None, exhausted, 2.0, 0.5, 4)


def test_the_mean_of_the_best_rewards():
    found = found_of([1.0, 4.0, 2.0, 6.0])
    assert [top_mean(found, 3, k) for k in (1, 2, 3, 4)] == [4.0, 3.0, 7 / 3, None]
    assert top_mean(found, 4, 2) == 5.0
    assert top_mean(found_of([1.0, 3.0], exhausted=True), 10, 2) == 2.0  # the space has two children
    (row,) = rows_of({"a": [found, found_of([8.0, 0.0, 0.0, 0.0])]}, (4,), None, (1, 2, 5))
    assert row.top[1] == row.best and row.top[2].mean == 4.5 and row.top[5] is None


def test_leads_are_paired_by_seed():
    """The pairs differ by 1 and 2; without pairing, the seeds would hide it."""
    searches = {"new": [found_of([11.0, 1.0]), found_of([102.0, 2.0])], "old": [found_of([10.0]), found_of([100.0])]}
    by_measure = {lead.measure: lead for lead in leads_of(searches, (1, 2), 200.0, (1, 2)) if lead.budget == 1}
    top = by_measure["top 1"]
    assert (top.competitor, top.over, top.ahead, top.behind, top.seeds) == ("new", "old", 2, 0, 2)
    # Student's t with one degree of freedom is 12.706 at 97.5 %; the standard error of (1, 2) is 0.5.
    assert (top.lead.mean, top.lead.low, top.lead.high) == pytest.approx((1.5, 1.5 - 6.353, 1.5 + 6.353), abs=1e-3)
    assert by_measure["regret"].lead.mean == 1.5  # a smaller regret is a lead above 0
    assert "top 2" not in by_measure  # after one child there are no two
    assert [lead.measure for lead in leads_of(searches, (1,), None, (1,))] == ["top 1"]


def test_the_interval_of_a_few_seeds_covers_the_mean_as_often_as_it_says():
    """A percentile bootstrap would cover it in 50 % of two seeds and 75 % of three. The standard deviation of a share
    of 2,000 is 0.005."""
    generator = np.random.default_rng(1)
    for seeds in (2, 3, 19):
        means = [mean_of(generator.normal(5.0, 2.0, size=seeds)) for _ in range(2000)]
        assert 0.93 < np.mean([one.low <= 5.0 <= one.high for one in means]) < 0.97
    assert mean_of([2.0, 2.0]) == Mean(2.0, 2.0, 2.0)
    assert mean_of([3.0]) == Mean(3.0, None, None)


def test_the_best_rewards_and_leads_are_in_the_table_and_the_json(automl, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (folder / "own.py").write_text("def own(spec):\n    return float(sum(map(ord, ''.join(spec.values.values()))))\n")
    own = (*BENCH, "--task", "own.py:own", "--controllers", "random,evolution", "--budgets", "3,16")
    ran = automl(*own, "--seeds", "2")
    assert ran.code == 0, ran.error
    assert max(map(len, ran.out.splitlines())) <= 80
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["children", "controller", "best", "95", "%", "top", "5", "top", "15"] in lines
    assert "Lead of random with the same seed; below 0 where it is worse" in ran.out
    assert [line[2:4] for line in lines if line[:2] == ["16", "evolution"]][1:] == [
        ["top", "1"],
        ["top", "5"],
        ["top", "15"],
    ]
    read = automl(*own, "--seeds", "2", "--top", "2", "--json").json
    assert [lead["measure"] for lead in read["leads"]] == ["top 2", "top 2"]
    stored = json.loads((folder / "b.json").read_text())
    assert stored["leads"] == read["leads"]
    rewards = [stored["searches"]["random"][seed]["rewards"] for seed in "01"]
    expected = np.mean([np.sort(one)[-2:].mean() for one in rewards])
    row = next(row for row in read["rows"] if (row["competitor"], row["budget"]) == ("random", 16))
    assert row["top"]["2"]["mean"] == pytest.approx(expected)
    assert (
        automl(*own, "--seeds", "2", "--top", "0")
        .error.strip()
        .endswith("write numbers of children with commas between them: 1,5,15.")
    )


def test_a_landscape_shows_the_best_rewards_when_asked(automl, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = (*BENCH, "--controllers", "random,other=random", "--budgets", "6", "--seeds", "2")
    without = automl(*command).out
    assert "top 5" not in without and "6         other  regret   0.0000  0 to 0  0      0" in without
    ran = automl(*command, "--top", "5")
    assert "top 5" in ran.out and max(map(len, ran.out.splitlines())) <= 80


def test_columns_that_do_not_fit_are_left_out_and_no_mean_before_its_interval(automl, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (folder / "own.py").write_text("def own(spec):\n    return 1.5\n")
    label = "l" * 40
    own = (*BENCH, "--task", "own.py:own", "--controllers", f"{label}=random", "--budgets", "15", "--seeds", "2")
    lines = automl(*own).out.splitlines()
    assert ["children", "controller", "best", "95", "%", "top", "5"] in [line.split() for line in lines]
    known = automl(
        *BENCH[:-1], "k.json", "--controllers", f"{label}=random", "--budgets", "15", "--seeds", "2", "--top", "5"
    )
    headings = next(line for line in known.out.splitlines() if line.startswith("children")).split()
    assert headings[:4] == ["children", "controller", "regret", "95"]
    tables = [line for line in [*lines, *known.out.splitlines()] if not line.startswith(("1/2", "2/2"))]
    assert max(map(len, tables)) <= 80


def test_a_bench_of_other_code_is_shown_and_not_mixed(automl, folder):
    command = (*BENCH, "--controllers", "random", "--budgets", "4")
    assert automl(*command, "--seeds", "1").code == 0
    stored = json.loads((folder / "b.json").read_text())
    assert {name: stored["settings"][name] for name in ("version", "code")} == code.code_identity()
    for changed in ({"code": "0123456789ab"}, {"version": "0.1.0"}):
        (folder / "b.json").write_text(json.dumps({**stored, "settings": stored["settings"] | changed}))
        assert automl(*command, "--seeds", "1").code == 0
        ran = automl(*command, "--seeds", "2")
        assert ran.code == 1 and "were run by automl" in ran.error and next(iter(changed.values())) in ran.error
        assert next(iter(changed.values())) in (folder / "b.json").read_text()


def test_a_file_that_names_no_code_goes_on(automl, folder):
    command = (*BENCH, "--controllers", "random", "--budgets", "4")
    assert automl(*command, "--seeds", "1").code == 0
    stored = json.loads((folder / "b.json").read_text())
    del stored["settings"]["code"], stored["leads"]
    (folder / "b.json").write_text(json.dumps(stored))
    assert automl(*command, "--seeds", "2").code == 0
    stored = json.loads((folder / "b.json").read_text())
    assert "code" not in stored["settings"] and stored["searches"]["random"].keys() == {"0", "1"}


def test_code_is_compared_by_its_meaning():
    one = '"""A module."""\ndef f(x):\n    """Adds."""\n    return x + 1  # one more\n'
    assert code._meaning(one) == code._meaning("def f(x):\n    return (x + 1)\n")
    assert code._meaning(one) != code._meaning("def f(x):\n    return x + 2\n")


def test_a_released_version_is_its_own_code(monkeypatch):
    monkeypatch.setattr(package, "__version__", "0.2.0")
    code.code_identity.cache_clear()
    assert code.code_identity() == {"version": "0.2.0"}
    code.code_identity.cache_clear()


def test_the_file_is_read_once(automl, folder, monkeypatch):
    reads = []
    read = file.BenchFile._read
    monkeypatch.setattr(file.BenchFile, "_read", lambda self, path: (reads.append(path), read(self, path)))
    command = {"space": "landscape", "preset": "noisy", "budgets": [2], "seeds": 3, "jobs": 1, "to": folder / "b.json"}
    package.bench(controllers=["random"], **command)
    result = package.bench(controllers=["evolution"], **command)
    assert len(reads) == 1
    assert json.loads((folder / "b.json").read_text())["controllers"].keys() == {"random", "evolution"}
    assert not result.leads and result.rows[0].top[1] is not None


def test_the_optimum_is_of_what_the_narrowing_leaves(automl, folder):
    (folder / "t.csv").write_text("op,width,acc\na,8,1\na,16,2\nb,8,7\nb,16,3\nc,8,5\n")
    table = ("--task", "table:t.csv", "--maximize", "acc", "--controllers", "random", "--seeds", "1", "--jobs", "1")
    for rules, optimum in (((), 7.0), (("--only", "op=a,c"), 5.0), (("--fix", "op=b", "--fix", "width=16"), 3.0)):
        ran = automl("bench", *table, "--budgets", "5", *rules)
        assert ran.code == 0, ran.error
        assert f"t.csv, optimum {optimum:.4f}\n" in ran.out and " 0.0000  -     100%" in ran.out
    (folder / "own.py").write_text(
        "from automl import Choice\n\ndef own():\n    op = yield Choice('kind', ('a', 'c'))\n"
        "    return {'op': op, 'width': 8}\n"
    )
    # A user's decision that is no column: the rows that the rule leaves are not known.
    own = automl("bench", *table, "--space", "own.py:own", "--budgets", "1", "--only", "kind=a")
    assert own.code == 0 and "t.csv\nMean of 1 seed\n" in own.out and "regret" not in own.out


def test_a_part_of_a_landscape_has_no_known_optimum(automl):
    ran = automl(*BENCH, "--controllers", "random", "--seeds", "1", "--budgets", "3", "--fix", "choice0=a")
    assert ran.code == 0 and "landscape (noisy) on synthetic\n" in ran.out and "regret" not in ran.out
