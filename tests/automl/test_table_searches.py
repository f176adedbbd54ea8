"""Searches whose rewards are looked up in a table or computed by a synthetic landscape."""

import json
import shutil

import pytest

from automl.child_trainers.experiment import make_space
from automl.settings.schema import SearchConfig
from automl.settings.stored import stored_settings

RANDOM = ("--controller", "random", "--workers", "0")


@pytest.fixture
def table(folder):
    """A table with 6 of 3 * 4 choices."""
    rows = [
        f"{op},{width},{0.1 * width + (op == 'b'):.2f}" for op, width in zip("abcabc", (1, 2, 3, 4, 1, 2), strict=True)
    ]
    (folder / "t.csv").write_text("\n".join(["op,width,acc", *rows]) + "\n")
    return "--task", "table:t.csv", "--maximize", "acc"


def rewards(automl, name, *more):
    found = automl("top", name, "-n", "99", "--json", *more).json
    return {child["number"]: child["reward"] for child in found}


def test_all_choices_of_a_table_are_found_and_no_others(automl, table):
    ran = automl("search", "s", *table, *RANDOM)
    assert ran.code == 0, ran.error
    assert "Data: a table with 6 of 12 choices of 2 columns" in ran.out
    assert "exhausted 6/100: the space has no more" in ran.out
    found = automl("top", "s", "-n", "99", "--json").json
    assert sorted(child["spec"]["values"]["op"] for child in found) == list("aabbcc")
    assert found[0]["spec"]["values"] == {"op": "b", "width": 2}
    refused = automl("show", "s", "--json").json["refused"]
    assert refused["invalid"] > 0 and refused.keys() == {"invalid", "repeat"}


def test_a_sparse_table_in_a_large_space_is_searched_to_its_end(automl, folder):
    """8^6 choices, of which 20 are in the table: too many to enumerate, and hardly one of them is drawn."""
    rows = [",".join(str((7 * row + 3 * column * column) % 20) for column in range(6)) for row in range(20)]
    header = ",".join(f"c{column}" for column in range(6))
    (folder / "t.csv").write_text("\n".join([f"{header},acc", *(f"{row},{i}" for i, row in enumerate(rows))]) + "\n")
    ran = automl("search", "s", "--task", "table:t.csv", "--maximize", "acc", *RANDOM, "--children", "20")
    assert ran.code == 0, ran.error
    assert sorted(rewards(automl, "s").values()) == list(range(20))


def test_a_narrowed_table_ends_with_what_is_left(automl, table):
    assert automl("search", "s", *table, *RANDOM, "--fix", "op=c").code == 0
    assert sorted(rewards(automl, "s").values()) == [0.2, 0.3]


def test_a_table_that_has_moved_is_named_on_resume(automl, table, folder):
    assert automl("search", "s", *table, *RANDOM, "--children", "2").code == 0
    shutil.move("t.csv", "moved.csv")
    assert "say where this table is now with --data table:PATH" in automl("resume", "s", "--children", "3").error
    assert automl("resume", "s", "--children", "3", "--data", "table:moved.csv").code == 0
    assert len(rewards(automl, "s")) == 3
    (folder / "moved.csv").write_text("op,width,acc\na,1,5\n")
    assert "is not the table that the search began with" in automl("resume", "s", "--children", "4").error


def test_a_table_with_a_space_of_one_s_own(automl, table, folder):
    (folder / "mine.py").write_text(
        "from automl import Choice\n"
        "def space():\n"
        "    width = yield Choice('w', (1, 2, 4), kind='own')\n"
        "    op = yield Choice('o', ('a', 'b'), kind='other')\n"
        "    return {'op': op, 'width': width}\n"
    )
    assert automl("search", "s", *table, *RANDOM, "--space", "mine.py:space").code == 0
    assert sorted(rewards(automl, "s").values()) == [0.1, 0.4, 1.1, 1.2]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--space", "table-row"), "The task table needs a file: write table:PATH."),
        (("--space", "table-row", "--task", "digits"), "are the columns of a table; name one with --task table:FILE"),
        (("--space", "convnet"), "this space makes ConvNet; drop --space to use the table's own"),
        (("--set", "space.kinds=all"), "space.kinds is 'all'; it is shared or separate."),
        (("--set", "task.metric=a"), "There is no task option called 'metric'; there is metrics."),
        (("--early-stop", "median"), "report no metrics per epoch, which --early-stop median needs"),
        (("--precision", "bfloat16"), "--precision has no effect on a table, from which rewards are looked up"),
        (("--data-dir", "."), "it is the folder of cifar10 or ptb or table:nas-bench-macro"),
        (("--max-params", "5"), "--max-params and --max-flops need a space"),
    ],
)
def test_what_does_not_fit_a_table_is_refused(automl, table, flags, sentence):
    if flags[0] == "--space" and flags[1] == "table-row":
        table = ()
    ran = automl("search", "s", *table, *RANDOM, *flags)
    assert ran.code == 1 and sentence in ran.error
    assert automl("list").code == 1  # no store was made


def test_kinds_of_columns(folder):
    (folder / "t.csv").write_text("l0,l1,acc\na,b,1\nb,a,2\n")
    for preset, kinds in (("shared", 1), ("separate", 2)):
        config = SearchConfig(task="table:t.csv", maximize="acc", preset=preset)
        decisions = make_space(stored_settings(config)).survey()[0].decisions
        assert len({decision.kind for decision in decisions}) == kinds


def test_nas_bench_macro_by_name(automl, folder):
    keys = ["".join(str(number // 3**place % 3) for place in range(8)) for number in range(3**8)]
    entry = {"std": 0.1, "params": 5, "flops": 7}
    path = folder / "data" / "nasbench" / "macro" / "nas-bench-macro_cifar10.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({key: {"mean_acc": number, **entry} for number, key in enumerate(keys)}))
    search = ("search", "s", "--task", "table:nas-bench-macro", *RANDOM, "--children", "4")
    assert "say which has nasbench/macro/nas-bench-macro_cifar10.json with --data-dir" in automl(*search).error
    ran = automl(*search, "--data-dir", "data")
    assert ran.code == 0 and "a table with all 6,561 choices of 8 columns" in ran.out
    shutil.move("data", "elsewhere")
    assert "cannot be read: No such file" in automl("resume", "s", "--children", "5").error
    assert automl("resume", "s", "--children", "5", "--data-dir", "elsewhere").code == 0
    assert "reads no data of yours; drop --data" in automl("resume", "s", "--data", "a.csv", "--children", "6").error


@pytest.mark.parametrize("preset", ["links", "conditional", "forty", "noisy", "numbers"])
def test_every_landscape_can_be_searched_and_a_search_repeats(automl, preset):
    for name in ("one", "two"):
        search = ("search", name, "--space", "landscape", "--preset", preset, *RANDOM, "--children", "10")
        ran = automl(*search, "--set", "task.instance=3")
        assert ran.code == 0, ran.error
    assert rewards(automl, "one") == rewards(automl, "two")
    assert "  space landscape, task synthetic" in automl("show", "one").out


def test_an_instance_cannot_change_in_a_search(automl):
    search = ("search", "s", "--space", "landscape", *RANDOM, "--children", "2")
    assert automl(*search).code == 0
    ran = automl("resume", "s", "--children", "3", "--set", "task.instance=3")
    assert "task.instance cannot be changed after a search has begun" in ran.error
