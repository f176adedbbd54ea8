"""Tables and the status of a search, on wide and narrow terminals."""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3

import pytest
from command_line import OURS
from rich.console import Console

from automl.cli.tables import table_lines
from automl.cli.views import BestTable
from automl.db.store import Store
from automl.status import StatusReader

TWO = """
import time
from automl import Choice

def space():
    x = yield Choice("size", (1, 2, 3, 4, 5, 6, 7, 8))
    return {"size": x}

def evaluate(spec):
    return {"first": 0.5, "second": 1.5, "errors": spec["size"], "f1": spec["size"] / 10}
"""


def test_columns_are_dropped_in_the_order_given_and_the_rest_stay_whole():
    headings, rows = ["name", "state", "more"], [["n" * 10, "s" * 10, "m" * 10]]
    assert table_lines(headings, rows, width=34, drop=("more", "state"))[1] == f"{'n' * 10}  {'s' * 10}  {'m' * 10}"
    assert table_lines(headings, rows, width=33, drop=("more", "state"))[1] == f"{'n' * 10}  {'s' * 10}"
    assert table_lines(headings, rows, width=5, drop=("more", "state"))[1] == "n" * 10


def test_the_list_of_searches_on_narrow_terminals(automl, mine, folder, monkeypatch):
    (folder / "a" / "long" / "way").mkdir(parents=True)
    far = folder / "a" / "long" / "way" / "mine.py"
    far.write_text(mine.read_text())
    flags = ("--controller", "random", "--workers", "0", "--children", "2")
    assert automl("search", "mine", "--space", f"{far}:space", "--task", f"{far}:evaluate", *flags).code == 0
    assert automl("search", "a-second-one", *OURS, *flags).code == 0
    assert automl("list").out.splitlines()[0].split()[-1] == "started"
    for width in (80, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        heading, first, second = automl("list").out.splitlines()
        assert max(map(len, (heading, first, second))) <= width
        assert first.split()[:3] == ["mine", "finished", "2/2"] and second.split()[0] == "a-second-one"
        if width == 80:
            assert heading.split()[:6] == ["name", "state", "trained", "best", "space", "task"]
    monkeypatch.setenv("COLUMNS", "20")
    assert automl("list").out.splitlines()[1].split() == ["mine", "finished"]


def test_an_ordinary_list_keeps_its_columns(automl, digits, folder, monkeypatch):
    shutil.copy(digits[0], folder / "automl.db")
    monkeypatch.setenv("COLUMNS", "80")
    heading, row = automl("list").out.splitlines()
    assert heading.split() == ["name", "state", "trained", "best", "space", "task", "controller", "started"]
    assert row.split()[0] == "digits" and len(row) <= 80


@pytest.mark.parametrize(("flags", "told"), [
    (("--maximize", "f1"), "f1 0.8000"),
    (("--minimize", "errors"), "errors 1.0000"),
])  # fmt: skip
def test_the_metric_of_the_goal_comes_first(automl, folder, flags, told):
    (folder / "two.py").write_text(TWO)
    name = flags[1]
    search = ("--space", "two.py:space", "--task", "two.py:evaluate", "--controller", "random")
    ran = automl("search", "two", *search, *flags, "--children", "8", "--workers", "0")
    assert ran.code == 0, ran.err
    words = f"Reward: {'minus ' if flags[0] == '--minimize' else ''}{name}"
    assert words in ran.out.splitlines()
    assert f"{told}, first 0.5000" in automl("top", "two", "-n", "1").out
    assert told in automl("list").out
    shown = automl("show", "two").out
    assert f"8/8 trained, best {told} (child " in shown
    assert f"  reward: {words.removeprefix('Reward: ')}" in shown.splitlines()
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        console = Console(record=True, width=100, file=io.StringIO())
        console.print(BestTable(StatusReader(store, "two").read()))
    assert f"{told}, first 0.5000" in console.export_text()


def test_options_are_shown_beside_their_probabilities(automl, digits, folder):
    shutil.copy(digits[0], folder / "automl.db")
    with contextlib.closing(Store("automl.db", readonly=True)) as store:
        steps = store.steps(store.search("digits").id)
    chances = steps[-1].stats["probabilities"]
    lines = automl("show", "digits").out.splitlines()
    heights = "  ".join(
        f"{size} {chance:.0%}" for size, chance in zip((1, 3, 5), chances["filter_height"], strict=True)
    )
    assert f"    filter_height: {heights}" in lines
    assert "  reward: cube of the validation accuracy" in lines


def test_rejected_children_are_not_among_the_best(automl, mine, folder):
    ran = automl("search", "mine", *OURS, "--workers", "0", "--children", "4")
    assert ran.code == 0, ran.err
    first, *others = (found["number"] for found in automl("top", "mine", "--json").json)

    def end(numbers):
        with contextlib.closing(sqlite3.connect("automl.db")) as connection, connection:
            for number in numbers:
                connection.execute("UPDATE children SET ending='screened', screened=1 WHERE number=?", (number,))

    end([first])
    assert [found["number"] for found in automl("top", "mine", "--json").json] == others
    assert f"best {automl('top', 'mine', '--json').json[0]['reward']:.4f}" in automl("show", "mine").out
    assert automl("export", "mine", "--format", "json", "--to", "best.json").out.startswith(
        f"Exported child {others[0]} of mine"
    )
    end(others)
    assert automl("top", "mine").out == (
        "No child of mine is trained to its end yet: of 4 trained: 4 rejected by the screening test (100%).\n"
    )
