"""The Python API: the same searches, without a command line."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import MINE, Watcher, python, run_automl
from command_line import OURS as FLAGS

import automl
from automl.child_trainers.data.digits import load_digits_data
from automl.child_views import child_json
from automl.db.records import NameTakenError, SearchState, StoreError, UnknownSearchError

OURS = {"space": "mine.py:space", "task": "mine.py:evaluate", "controller": "random", "workers": 0}


def test_search_and_resume(mine, folder):
    result = automl.search("mine", **OURS, children=3, fix=["digit0=3"])
    assert (result.name, result.store, result.ending.state) == ("mine", "automl.db", SearchState.FINISHED)
    trained = [child for child in result.children if child.state == "trained"]
    assert [child.number for child in trained] == [0, 1, 2]
    assert all(child.spec[0] == 3 for child in result.children)
    best = result.best
    assert best.reward == max(child.reward for child in trained) == best.child.metrics["worth"]
    further = automl.resume("mine", children=5)
    assert further.ending.state == SearchState.FINISHED
    assert sum(child.state == "trained" for child in result.children) == 5  # it is read on access
    assert automl.resume("mine").ending.state == SearchState.FINISHED


def test_it_equals_the_search_of_the_command_line(mine, folder):
    automl.search("mine", **OURS, children=9, seed=4, batch_size=4)
    flags = ("--children", "9", "--seed", "4", "--batch-size", "4", "--workers", "0", "--store", "other.db")
    assert run_automl("search", "mine", *FLAGS, *flags, folder=folder).code == 0
    assert Watcher(folder / "automl.db", "mine").digest() == Watcher(folder / "other.db", "mine").digest()


SEARCH_TWICE = """
import warnings
import tensorflow
import automl
tensorflow.config.threading.set_intra_op_parallelism_threads(2)
if {computes}:
    tensorflow.zeros(1)
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("default", RuntimeWarning)
    for name in ("one", "two"):
        automl.search(
            name, space="mine.py:space", task="mine.py:evaluate", controller="random", children=1, workers={workers}
        )
    print([str(warning.message) for warning in warned if warning.category is RuntimeWarning])
"""


@pytest.mark.parametrize(("computes", "workers", "warned"), [(True, 0, True), (False, 0, False), (True, 1, False)])
def test_children_in_a_process_where_tensorflow_has_other_threads(mine, folder, computes, workers, warned):
    ran = python(SEARCH_TWICE.format(computes=computes, workers=workers), folder=folder)
    assert ran.code == 0, ran.err
    message = (
        "'TensorFlow already computes in this process with 2 threads, so children train with them and not with "
        "threads=1, and their last digits may differ from those of another run; call automl.search before TensorFlow "
        "computes, or with workers=1.'"
    )
    assert ran.out.splitlines()[-1] == (f"[{message}]" if warned else "[]")


def test_open_store(mine, folder, monkeypatch):
    result = automl.search("mine", **OURS, children=2, store="named.db")
    with contextlib.closing(automl.open_store("named.db")) as store:
        (search,) = store.searches()
        assert (search.name, search.num_trained) == ("mine", 2)
        with pytest.raises(StoreError):  # read-only
            store.delete("mine")
    monkeypatch.setenv("AUTOML_STORE", "named.db")
    with contextlib.closing(automl.open_store()) as store:
        assert len(store.children(store.search("mine").id)) == len(result.children)
    with pytest.raises(StoreError, match=r"There is no store at sqlite:///none\.db"):
        automl.open_store("none.db")
    assert not (folder / "none.db").exists()


def test_exports_and_the_dataframe(mine, folder):
    result = automl.search("mine", **OURS, children=3)
    path = result.export("json", "best.json")
    assert path == path.relative_to(".") and json.loads(path.read_text())["number"] == result.best.child.number
    one = result.export("json", folder / "one.json", child=0)
    assert json.loads(one.read_text())["number"] == 0
    with pytest.raises(ValueError, match="already exists"):
        result.best.export("json", "best.json")
    result.best.export("json", "best.json", force=True)
    frame = result.dataframe()
    assert list(frame.index) == [child.number for child in result.children]
    assert frame["reward"].max() == result.best.reward
    assert {"drawn_under", "alone", "tries"} <= set(frame.columns)  # the names of 0.1.0


def test_children_keep_their_public_names(mine, folder):
    result = automl.search("mine", **OURS, children=1)
    child = result.children[0]
    assert (child.policy_step, child.isolated) == (0, False)
    shown = child_json(child)
    assert shown["drawn_under"] == 0 and "policy_step" not in shown


def test_a_dataframe_without_pandas_names_the_extra(mine, folder, monkeypatch):
    result = automl.search("mine", **OURS, children=1)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError) as raised:
        result.dataframe()
    assert str(raised.value) == "dataframe() needs pandas; install it with: pip install 'automl-reinforce[dataframe]'"


def test_a_result_of_a_search_that_another_process_ran(digits, folder):
    path, _ = digits
    shutil.copy(path, folder / "copy.db")
    result = automl.Result("digits", "copy.db")
    assert result.ending is None
    assert result.best.reward == pytest.approx(result.best.child.metrics["val_accuracy"] ** 3)
    model = result.best.model()
    assert model.count_params() == result.best.child.params
    data = load_digits_data()
    found = np.mean(model.predict(data.x_validation, verbose=0).argmax(1) == data.y_validation)
    assert found == pytest.approx(result.best.child.metrics["val_accuracy"], abs=1e-3)


def test_the_time_limit_holds_here_too(mine, folder):
    result = automl.search("mine", **OURS, time=0.4)
    assert (result.ending.state, result.ending.cause) == (SearchState.PAUSED, "the time that was given is over")
    assert 0 < len(result.children) < 1024


def test_nothing_trained_has_no_best(mine, folder):
    mine.write_text(MINE + "\ndef broken(spec):\n    raise RuntimeError('no data')\n")
    result = automl.search("mine", **{**OURS, "task": "mine.py:broken"}, children=3)
    assert result.ending.failed and result.ending.state == SearchState.PAUSED
    with pytest.raises(StoreError, match="No child of 'mine' is trained yet"):
        _ = result.best


def test_wrong_arguments(mine, folder):
    with pytest.raises(ValueError, match="There is no setting called 'childern'; there is children, "):
        automl.search("mine", **OURS, childern=3)
    with pytest.raises(ValueError, match="--children is '3'; it must be a whole number"):
        automl.search("mine", **OURS, children="3")
    assert not (folder / "automl.db").exists()
    automl.search("mine", **OURS, children=1)
    with pytest.raises(NameTakenError, match="automl resume mine"):
        automl.search("mine", **OURS)
    with pytest.raises(UnknownSearchError, match="it has mine"):
        automl.resume("mien")
    with pytest.raises(AttributeError, match="module 'automl' has no attribute 'saerch'"):
        _ = automl.saerch


def test_the_public_names(folder):
    assert {name: getattr(automl, name) for name in automl.__all__}
    namespace: dict[str, object] = {}
    exec("from automl import *", namespace)
    assert set(automl.__all__) <= set(namespace)


# Arrays and functions of a session


def tiny_images(count=64):
    """Images of 6 by 6 whose brighter half is their label."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    x = generator.uniform(0.0, 0.4, (count, 6, 6)).astype(np.float32)
    x[labels == 1, 3:] += 0.6
    x[labels == 0, :3] += 0.6
    return x, labels


def test_arrays(folder):
    x, y = tiny_images()
    ended = []
    quick = {"workers": 0, "controller": "random", "set": ["task.epochs=1", "task.batch_size=8"]}
    narrow = {"fix": ["depth=3", "layer*/num_filters=8"]}
    held_out = {"x_validation": x[:16], "y_validation": y[:16]}
    result = automl.search("tiny", x=x, y=y, arrays=held_out, children=2, on_child_end=ended.append, **quick, **narrow)
    assert result.ending.state == SearchState.FINISHED
    assert sorted(ended, key=lambda child: child.number) == result.children[:2]  # the child of most FLOPs came first
    assert all(child.state == "trained" for child in ended)
    kept = folder / "automl.db.data" / "tiny.npz"
    with np.load(kept) as arrays:
        assert set(arrays.files) == {"x_train", "y_train", "x_validation", "y_validation"}
        assert np.array_equal(arrays["x_train"], x)
    found = np.mean(result.best.model().predict(x[:16, ..., None], verbose=0).argmax(1) == y[:16])
    assert found == pytest.approx(result.best.child.metrics["val_accuracy"], abs=1e-3)
    other = dict(np.load(kept))
    original = kept.read_bytes()
    np.savez(kept, **{**other, "x_train": x + 0.1})
    with pytest.raises(
        ValueError, match="does not hold the data that the search began with; restore them, give their path"
    ):
        automl.resume("tiny", children=3)
    assert Watcher(folder / "automl.db", "tiny").ask(lambda store, search: store.searches()[0].state) == "finished"
    kept.write_bytes(original)
    assert automl.resume("tiny", children=3, on_child_end=ended.append).ending.state == SearchState.FINISHED
    assert sorted(child.number for child in ended) == [0, 1, 2]
    assert run_automl("delete", "tiny", "--yes", folder=folder).code == 0
    assert not kept.exists()


def test_wrong_arrays_leave_nothing_behind(folder):
    x, y = tiny_images()
    with pytest.raises(ValueError, match="Arrays take the place of a task; drop the argument task, or x and y"):
        automl.search("tiny", x=x, y=y, task="digits", workers=0)
    with pytest.raises(ValueError, match="must have the same length, found 64 images and 63 labels"):
        automl.search("tiny", x=x, y=y[:-1], workers=0)
    with pytest.raises(ValueError, match="lacks x_train"):
        automl.search("tiny", y=y, workers=0)
    assert not list(folder.glob("automl.db*"))


def test_a_function_of_the_session(mine, folder):
    asked = {"space": "mine.py:space", "controller": "random"}
    with pytest.raises(ValueError, match=r"Workers cannot find .*<lambda>: it exists only in this session"):
        automl.search("mine", **asked, task=lambda spec: sum(spec), workers=1)
    result = automl.search("mine", **asked, task=lambda spec: sum(spec), workers=0, children=2)
    assert result.best.reward == sum(result.best.child.spec)
    with pytest.raises(
        ValueError, match=r"a function of a Python session; go on there with automl\.resume\(NAME, task"
    ):
        automl.resume("mine", children=3)
    with pytest.raises(ValueError, match="which exists only in a Python session; use workers=0"):
        automl.resume("mine", children=3, workers=1, task=lambda spec: sum(spec))
    assert Watcher(folder / "automl.db", "mine").ask(lambda store, search: store.searches()[0].state) == "finished"
    further = automl.resume("mine", children=3, task=lambda spec: sum(spec))
    assert further.ending.state == SearchState.FINISHED
    assert sum(child.state == "trained" for child in further.children) == 3


def test_a_function_where_the_search_has_a_file(mine, folder):
    automl.search("mine", **OURS, children=1)
    with pytest.raises(ValueError, match="This search has its own task; drop the argument task"):
        automl.resume("mine", children=2, task=lambda spec: 1.0)


def test_every_child_has_one_event(mine, folder):
    ended = []
    mine.write_text(MINE + "\ndef picky(spec):\n    if spec[0] == 3:\n        raise ValueError('no')\n    return 1.0\n")
    asked = {**OURS, "task": "mine.py:picky", "keep_going": True, "store": "other.db"}
    result = automl.search("mine", **asked, children=6, on_child_end=ended.append)
    final = [child for child in result.children if child.state in ("trained", "failed")]
    assert ended == final and {child.state for child in ended} == {"trained", "failed"}
    automl.resume("mine", store="other.db", children=8, on_child_end=ended.append)
    assert [child.number for child in ended] == list(range(len(ended))) and len(ended) >= 8


def test_paths_where_addresses_are_taken(mine, folder):
    place = folder / "named.db"
    result = automl.search("mine", store=place, children=3, **OURS | {"space": Path("mine.py:space")})
    assert result.store == str(place)
    assert automl.resume("mine", store=place, children=6).best.reward == result.best.reward
    assert len(automl.Result("mine", place).children) == 8
    with contextlib.closing(automl.open_store(place)) as store:
        assert store.search("mine").num_trained == 6
    assert automl.retry("mine", store=place) == []
    with pytest.raises(StoreError, match="A store's address is a file's path or a database URL, not 3"):
        automl.open_store(3)
    with pytest.raises(StoreError, match="is empty or no path"):
        automl.open_store("a\0b")
    with pytest.raises(StoreError, match="is empty or no path"):
        automl.search("mine", store="", **OURS)


def test_unknown_settings_name_the_nearest(mine, folder):
    with pytest.raises(ValueError, match="There is no setting called 'Childs'; there is children, "):
        automl.search("mine", Childs=3)
    with pytest.raises(ValueError, match="There is no setting of a resume called 'childern'; there is children, "):
        automl.resume("mine", childern=3)
    with pytest.raises(ValueError, match="--time is nan; it must be at most"):
        automl.search("mine", time=float("nan"))
