"""Tables of choices and scores: how they are read, what is refused, and the task that looks scores up."""

import functools
import json
import math

import pytest

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.outcome import Goal, InvalidResultError
from automl.child_trainers.tables.nasbench_macro import load_nasbench_macro
from automl.child_trainers.tables.table import load_csv
from automl.child_trainers.tables.task import TableLookup, TableRecipe, table_columns
from automl.child_trainers.task import Record
from automl.search_spaces.decisions import Choice
from automl.search_spaces.names import UnknownNameError
from automl.search_spaces.numeric import Ordinal
from automl.search_spaces.space import Space
from automl.search_spaces.table_row.space import Row, table_row

ACC = Goal("acc", minimize=False)
ACC_OF_MACRO = Goal("mean_acc", minimize=False)


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "t.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_numbers_stay_numbers_and_options_are_sorted(csv):
    table = load_csv(csv("op,width,rate,acc\nb,10,0.5,1\na,9,1e-3,2\n"), ACC)
    assert table.columns == {"op": ("a", "b"), "width": (9, 10), "rate": (0.001, 0.5)}
    assert type(table.columns["width"][0]) is int
    assert table.rows == {("b", 10, 0.5): {"acc": 1.0}, ("a", 9, 0.001): {"acc": 2.0}}


@pytest.mark.parametrize("texts", [("01", "1"), ("1", "x"), ("inf", "1"), ("nan", "2")])
def test_a_column_that_is_not_all_different_finite_numbers_is_one_of_texts(csv, texts):
    table = load_csv(csv(f"code,acc\n{texts[0]},1\n{texts[1]},2\n"), ACC)
    assert table.columns == {"code": tuple(sorted(texts))}


def test_a_byte_order_mark_quotes_spaces_and_empty_lines_are_no_part_of_the_values(csv):
    table = load_csv(csv(b'\xef\xbb\xbfop , acc\r\n\r\n"a,b", 1\r\nc,2\r\n,\r\n'), ACC)
    assert table.rows == {("a,b",): {"acc": 1.0}, ("c",): {"acc": 2.0}}


def test_the_fingerprint_is_of_the_content_alone(csv):
    first = load_csv(csv("op,acc\na,1\nb,2\n"), ACC).fingerprint
    assert load_csv(csv("op,acc\r\nb,2.0\r\na,1\r\n"), ACC).fingerprint == first
    assert load_csv(csv("op,acc\na,1\nb,3\n"), ACC).fingerprint != first


@pytest.mark.parametrize(
    ("text", "goal", "sentence"),
    [
        ("", ACC, "t.csv is empty; a table has a header"),
        ("op,acc\n", ACC, "t.csv has no row below its header"),
        ("op,acc\na,1\nb,2\na,3\n", ACC, "Lines 2 and 4 of .*t.csv are the same choice; keep one row"),
        ("op,acc\na,1\nb\n", ACC, "Line 3 of .*t.csv has 1 columns and the header has 2"),
        ("op,acc\na,1,2\n", ACC, "Line 2 of .*t.csv has 3 columns and the header has 2"),
        ("op,acc\na,good\n", ACC, "Line 2 of .*t.csv has 'good' in the column 'acc', which must be a finite number"),
        ("op,acc\na,nan\n", ACC, "Line 2 of .*t.csv has 'nan' in the column 'acc'"),
        ("op,acc\n,1\n", ACC, "Line 2 of .*t.csv has no value in the column 'op'"),
        ("op,op,acc\na,b,1\n", ACC, "The header of .*t.csv has two columns 'op'"),
        ("op,,acc\na,b,1\n", ACC, "The header of .*t.csv has a column without a name"),
        ("acc\n1\n", ACC, "t.csv has no column of choices beside acc"),
        ("op,acc\na,1\n", None, "say which column is the score with --maximize COLUMN or --minimize COLUMN: op, acc"),
        (b"op,acc\n\xff,1\n", ACC, "t.csv is no CSV file in UTF-8"),
        ('op,acc\n"a,1\n', ACC, "t.csv is no CSV file in UTF-8"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(csv, text, goal, sentence):
    with pytest.raises(DataError, match=sentence) as refused:
        load_csv(csv(text), goal)
    assert "\n" not in str(refused.value)


def test_an_unknown_column_is_answered_with_the_known_ones(csv):
    path = csv("op,acc\na,1\n")
    with pytest.raises(UnknownNameError, match=r"There is no column of t.csv called 'ac'; there is acc, op"):
        load_csv(path, Goal("ac", minimize=False))
    with pytest.raises(UnknownNameError, match=r"There is no column of t.csv called 'flops'"):
        load_csv(path, ACC, ("flops",))


def test_columns_of_numbers_are_ordered(csv):
    path = csv("op,width,rate,one,acc\na,16,0.5,3,1\nb,8,0.1,3,2\nb,64,0.2,3,2\n")
    options = table_columns(f"table:{path}", {}, data_dir=None, goal=ACC)
    assert options["ordered"] == ["width", "rate"]
    decisions = Space(functools.partial(table_row, **options)).walk(0)
    kinds = []
    while decisions.decision is not None:
        kinds.append(type(decisions.decision))
        decisions.answer((0,))
    assert kinds == [Choice, Ordinal, Ordinal, Choice]
    assert load_csv(csv(f"width,acc\n1,1\n1{'0' * 400},2\n"), ACC).ordered == ()  # no number of a computer


@pytest.mark.parametrize(
    ("ordered", "sentence"),
    [
        ("width", r"space.ordered is 'width'; it must be a list of columns, for example \[\"width\"\]"),
        (["w"], "There is no column of the table called 'w'; there is width"),
    ],
)
def test_ordered_names_columns(ordered, sentence):
    with pytest.raises(ValueError, match=sentence):
        next(table_row(columns=[["width", [1, 2]]], ordered=ordered))


def test_a_column_with_too_many_values_is_taken_for_a_result(csv):
    text = "seconds,acc\n" + "".join(f"{index},1\n" for index in range(1001))
    with pytest.raises(DataError, match=r"has 1,001 different values.*--set 'task.metrics=\[\"seconds\"\]'"):
        load_csv(csv(text), ACC)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none.csv cannot be read: No such file"):
        load_csv(tmp_path / "none.csv", ACC)


def lookup(path, goal=ACC, **options):
    return TableLookup(f"table:{path}", TableRecipe(**options.pop("recipe", {})), goal=goal, **options)


def test_rewards_are_looked_up(csv):
    task = lookup(csv("op,width,acc,loss\na,1,0.5,3\nb,2,0.7,4\n"), recipe={"metrics": ["loss"]})
    outcome = task.evaluate(Row({"op": "b", "width": 2}), seed=0, report=Record())
    assert (outcome.reward, dict(outcome.metrics)) == (0.7, {"acc": 0.7, "loss": 4.0})
    assert task.evaluate({"width": 1, "op": "a", "more": []}, seed=0, report=Record()).reward == 0.5
    assert (task.admits(Row({"op": "a", "width": 1})), task.admits(Row({"op": "a", "width": 2}))) == (True, False)
    assert not task.admits({"op": ["a"], "width": 1})
    assert task.optimum(None) == 0.7
    with pytest.raises(InvalidResultError, match="has no row for this child"):
        task.evaluate(Row({"op": "a", "width": 2}), seed=0, report=Record())


def test_a_score_may_be_minimized(csv):
    task = lookup(csv("op,loss\na,3\nb,4\n"), Goal("loss", minimize=True))
    assert task.evaluate(Row({"op": "a"}), seed=0, report=Record()).reward == -3.0
    assert (task.optimum(None), task.metric) == (-3.0, "loss")


def test_specs_of_other_spaces_are_refused(csv):
    task = lookup(csv("op,width,acc\na,1,0.5\n"))
    task.check({"op": "a", "width": 1, "note": "own"})
    with pytest.raises(ValueError, match=r"its columns \(op, width\), and this space makes int; drop --space"):
        task.check(3)
    with pytest.raises(ValueError, match="no value for the column 'width'"):
        task.check({"op": "a"})
    with pytest.raises(ValueError, match="The decision 'acc' of this search is no column of choices"):
        task.check(Row({"op": "a", "width": 1, "acc": 1}))


def test_another_table_than_the_search_began_with_is_refused(csv):
    path = csv("op,acc\na,1\nb,2\n")
    fingerprint = lookup(path).fingerprint
    lookup(path, fingerprint=fingerprint).prepare()
    path.write_text("op,acc\na,1\nb,3\n")
    with pytest.raises(DataError, match="is not the table that the search began with; put it back, name its new"):
        lookup(path, fingerprint=fingerprint).prepare()
    path.unlink()
    with pytest.raises(DataError, match="is not there any more; say where this table is now with --data table:PATH"):
        lookup(path, fingerprint=fingerprint).prepare()


def test_the_recipe_takes_a_list_of_columns():
    assert TableRecipe(["a"]).metrics == ("a",)
    with pytest.raises(ValueError, match=r"task.metrics is 'a'; it must be a list of columns"):
        TableRecipe("a")


def macro_folder(tmp_path, change=lambda table: None):
    """A data folder with a table of the form of NAS-Bench-Macro, whose best network is the last."""
    keys = ["".join(str(number // 3**place % 3) for place in range(8)) for number in range(3**8)]
    entry = {"std": 0.1, "params": 5, "flops": 7, "test_acc": [1, 2, 3]}
    table = {key: {"mean_acc": 90 + number / 3**8, **entry} for number, key in enumerate(keys)}
    change(table)
    path = tmp_path / "nasbench" / "macro" / "nas-bench-macro_cifar10.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(table))
    return tmp_path


def test_nas_bench_macro_is_read_from_the_data_folder(tmp_path):
    folder = macro_folder(tmp_path)
    task = TableLookup("table:nas-bench-macro", TableRecipe(), data_dir=folder)
    best = Row({f"layer{index}": 2 for index in range(8)})
    assert math.isclose(task.evaluate(best, seed=0, report=Record()).reward, 90 + (3**8 - 1) / 3**8)
    assert task.optimum(best) == task.evaluate(best, seed=0, report=Record()).reward
    options = table_columns("table:nas-bench-macro", {}, data_dir=folder, goal=None)
    assert options == {"columns": [[f"layer{index}", [0, 1, 2]] for index in range(8)]}  # blocks have no order
    smallest = TableLookup("table:nas-bench-macro", TableRecipe(), data_dir=folder, goal=Goal("params", minimize=True))
    assert smallest.evaluate(best, seed=0, report=Record()).reward == -5.0


def test_nas_bench_macro_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(DataError, match=r"say which has nasbench/macro/.* with --data-dir"):
        load_nasbench_macro(None, ACC_OF_MACRO)
    with pytest.raises(DataError, match=r"cannot be read: No such file or directory; download it from https"):
        load_nasbench_macro(tmp_path, ACC_OF_MACRO)
    with pytest.raises(UnknownNameError, match="no column of nas-bench-macro called 'acc'; there is mean_acc"):
        load_nasbench_macro(tmp_path, ACC)
    macro_folder(tmp_path / "short", lambda table: table.pop("00000000"))
    with pytest.raises(DataError, match="has 6,560 networks of 6,561"):
        load_nasbench_macro(tmp_path / "short", ACC_OF_MACRO)
    macro_folder(tmp_path / "other", lambda table: table.update({"00000000": {"mean_acc": 1}}))
    with pytest.raises(DataError, match=r"is not the table of NAS-Bench-Macro"):
        load_nasbench_macro(tmp_path / "other", ACC_OF_MACRO)
    with pytest.raises(ValueError, match=r"task.metrics has no effect on nas-bench-macro"):
        TableLookup("table:nas-bench-macro", TableRecipe(["std"]), data_dir=tmp_path).prepare()
