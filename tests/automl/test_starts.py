"""Checks at the start of a search; a refused start leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import files_in

import automl as face
from automl import Choice

EVALUATE = """
def evaluate(spec):
    return 1.0
"""
OURS = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random", "--workers", "0")


@pytest.fixture
def refused(automl, folder):
    """The sentence with which a start is refused; it leaves no file."""

    def start(*arguments):
        before = files_in(folder.parent)
        error = automl("search", "s", *arguments).error
        assert files_in(folder.parent) == before
        return error

    return start


@pytest.fixture
def write(folder):
    """Writes a file of the user with a space whose body is given."""

    def write(body, head=""):
        indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
        text = f"from automl import Choice, Links\n{head}\n\ndef space():\n{indented}\n{EVALUATE}"
        (folder / "mine.py").write_text(text)

    return write


NOT_REPEATED = [
    # (head, body, the place that the message names)
    (
        "import random",
        'a = yield Choice("a", (1, 2))\nreturn {"a": a, "lr": [1, random.random()]}',
        "'lr[1]' in the spec",
    ),
    ("import random", 'yield Choice("a", (1, random.random()))', "the decision 'a'"),
    ("import random", 'yield Choice("a" + str(random.random()), (1, 2))', "there is the decision 'a0."),
    ("import time\nTOP = time.time_ns()", 'a = yield Choice("a", (1, 2))\nreturn {"top": TOP}', "'top' in the spec"),
    ("import time\nTOP = time.time_ns()", 'a = yield Choice("rate", (1, TOP))\nreturn a', "the decision 'rate'"),
    ("import os", 'yield Choice("a", (1, 2))\nreturn os.getpid()', "the spec is"),
    ("", 'yield Choice("units", tuple({"few", "many"}))', "the decision 'units'"),
    ("", 'yield Choice("n", (1, 2))\nyield Choice("units", list({"few", "many", "more"}))', "the decision 'units'"),
    ("", 'yield Choice("pair", tuple({("a", 1), ("b", 2)}))', "the decision 'pair'"),
    ("", 'yield Choice("units", {"few", "many"})', "The options of 'units' are a set"),
    (
        "COUNT = []",
        'COUNT.append(1)\nfor i in range(len(COUNT)):\n    yield Choice(f"c{i}", (1, 2))',
        "the decision 'c",
    ),
]


@pytest.mark.parametrize("head, body, place", NOT_REPEATED, ids=[place for _, _, place in NOT_REPEATED])
def test_a_space_that_is_not_deterministic(refused, write, head, body, place):
    write(body, head)
    error = refused(*OURS)
    assert place in error
    assert "set" in error


def test_options_in_the_order_of_a_set_are_no_set(automl, write):
    """Whatever hash seed this process has, one of these is in the order of a set."""
    write('yield Choice("a", ("few", "many"))\nyield Choice("b", ("many", "few"))')
    assert automl("search", "s", *OURS, "--children", "1").code == 0


def test_a_space_of_this_session_that_is_not_deterministic(folder):
    def space():
        yield Choice("a", (1, np.random.default_rng().random()))

    with pytest.raises(ValueError, match="The space is not the same every time: the decision 'a' has the options"):
        face.search("s", space=space, task=lambda spec: 1.0, workers=0, controller="random")
    assert not list(folder.iterdir())


NUMBERS = """
import numpy as np
SIZES = tuple(np.arange(16, 129, 16))
RATES = np.logspace(-3, -1, 3, dtype=np.float32)
"""


def test_numpy_numbers_are_numbers(automl, folder, write):
    write(
        """
units = yield Choice("units", SIZES)
rate = yield Choice("rate", RATES)
flag = yield Choice("flag", (np.bool_(False), np.bool_(True)))
name = yield Choice("name", (np.str_("relu"),))
size = yield Choice("size", ((np.int8(3), np.int8(3)), (1, 1)))
assert [type(value) for value in (units, rate, flag, name, *size)] == [int, float, bool, str, int, int]
return {"units": units, "rate": rate, "flag": flag, "name": name, "size": size, np.str_("more"): np.int64(7)}
""",
        NUMBERS,
    )
    assert automl("search", "s", *OURS, "--children", "3").code == 0
    (best, *_) = automl("top", "s", "--json").json
    assert best["spec"]["units"] in range(16, 129, 16)
    assert best["spec"]["rate"] in [float(np.float32(10.0**power)) for power in (-3, -2, -1)]
    assert best["spec"]["name"] == "relu" and best["spec"]["more"] == 7 and type(best["spec"]["flag"]) is bool


@pytest.mark.parametrize(
    "options, sentence",
    [
        ("(1, float('nan'))", "The decision 'units' has the option nan (float), which cannot be stored"),
        ("(1, float('inf'))", "The decision 'units' has the option inf (float), which cannot be stored"),
        ("(1, np.float32('nan'))", "The decision 'units' has the option nan (float), which cannot be stored"),
        ("(1, print)", "The decision 'units' has the option <built-in function print>"),
        ("(1, 1j)", "The decision 'units' has the option 1j (complex)"),
        ("(1, np.ones(3))", "The decision 'units' has the option array([1., 1., 1.]) (ndarray)"),
        ("(1, [b'x'])", "The decision 'units' has the option [b'x'] (list)"),
        ("(16, 32, np.int64(16))", "The decision 'units' has the option 16 twice"),
        ("('a', 'b', 'a')", "The decision 'units' has the option \"a\" twice"),
        ("()", "Choice 'units' has no options"),
    ],
)
def test_options_that_cannot_be_stored(refused, write, options, sentence):
    write(
        f'depth = yield Choice("depth", (1, 2))\nif depth == 2:\n    yield Choice("units", {options})',
        "import numpy as np",
    )
    assert refused(*OURS).startswith(sentence)


def test_a_spec_that_cannot_be_stored(refused, write):
    write('a = yield Choice("a", (1, 2))\nreturn {"a": {a}}')
    assert "Object of type set is not JSON serializable" in refused(*OURS)


def test_an_option_twice_of_a_space_of_ours(refused):
    error = refused("--task", "digits", "--controller", "random", "--set", "space.filter_heights=[3,3]")
    assert error.startswith("The decision 'layer0/filter_height' has the option 3 twice")


@pytest.mark.parametrize("flag, metric", [("--minimize", "val_loss"), ("--maximize", "f1"), ("--maximize", "reward")])
def test_a_goal_that_no_child_reports(refused, flag, metric):
    error = refused("--task", "digits", "--controller", "random", "--workers", "0", flag, metric)
    assert error == (
        f"{flag} {metric}: the task digits reports no metric {metric!r} that can be the goal; it has "
        "val_accuracy and loss."
    )


@pytest.mark.parametrize("metric", ["precision", "epoch", "traces", "xla"])
def test_a_fact_of_a_child_is_no_goal(refused, metric):
    space = ("--space", "recurrent-cell", "--controller", "random", "--set", "task.level=character")
    assert refused(*space, "--maximize", metric).endswith("val_perplexity and val_bits_per_character and loss.")


def test_an_existing_store_stays_as_it_is(automl, folder, write):
    write('yield Choice("a", (1, 2))')
    assert automl("search", "first", *OURS, "--children", "1").code == 0
    write('yield Choice("a", (1, print))')
    before = automl("list", "--json").json
    assert "cannot be stored" in automl("search", "second", *OURS).error
    assert automl("list", "--json").json == before


def test_a_name_is_free_again(automl, write):
    write('yield Choice("a", (1, print))')
    assert automl("search", "s", *OURS).code == 1
    write('yield Choice("a", (1, 2))')
    assert automl("search", "s", *OURS, "--children", "1").code == 0


def test_arrays_of_a_refused_search_are_removed(folder):
    with pytest.raises(ValueError, match="reports no metric"):
        face.search("s", x=np.zeros((8, 4, 4)), y=np.arange(8) % 2, controller="random", workers=0, maximize="f1")
    assert not list(folder.iterdir())


def test_a_search_that_fails_before_its_first_proposals_is_removed(automl, folder, write, monkeypatch):
    def fail(*_, **__):
        raise OSError("no more processes")

    write('yield Choice("a", (1, 2))')
    assert automl("search", "kept", *OURS, "--children", "1").code == 0
    monkeypatch.setattr("automl.pools.InlinePool", fail)
    before = files_in(folder)
    with pytest.raises(OSError, match="no more processes"):
        face.search("a", x=np.zeros((8, 4, 4)), y=np.arange(8) % 2, controller="random", workers=0)
    assert set(files_in(folder)) == set(before)
    assert "no more processes" in automl("search", "s", *OURS).error
    assert "no more processes" in automl("resume", "kept", "--children", "2").error
    assert [search["name"] for search in automl("list", "--json").json] == ["kept"]
