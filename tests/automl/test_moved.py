"""A search that is resumed from another folder, or whose data have moved."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run_automl

import automl as package
from automl.child_trainers.data.digits import load_digits_data

TABLE = """
import os
from automl import Choice

def space():
    with open("table.csv") as table:
        step = int(table.read())
    a = yield Choice("a", tuple(range(0, 10 * step, step)))
    return a

def evaluate(spec):
    with open("table.csv") as table:
        return {"reward": spec * int(table.read()), "folder": os.getcwd()}
"""
TABLES = ("--space", "mine.py:space", "--task", "mine.py:evaluate", "--controller", "random")
# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def table(folder):
    """A folder with a space and a task that read a file by a relative name; a folder in it is current."""
    (folder / "mine.py").write_text(TABLE)
    (folder / "table.csv").write_text("2\n")
    (folder / "sub").mkdir()
    return folder


def folders(automl, store):
    return {
        child["number"]: child["metrics"]["folder"] for child in automl("top", "s", "--json", "--store", store).json
    }


@pytest.mark.parametrize("workers", ["0", "1"])
def test_tasks_run_in_the_folder_that_the_search_began_in(automl, table, workers, monkeypatch):
    assert automl("search", "s", *TABLES, "--workers", workers, "--children", "1").code == 0
    monkeypatch.chdir(table / "sub")
    ran = automl("resume", "s", "--store", "../automl.db", "--children", "3")
    assert ran.code == 0
    assert f"Tasks run in {table}, where the search began; --workdir names another\n" in ran.out
    assert Path.cwd() == table / "sub"
    assert folders(automl, "../automl.db") == dict.fromkeys(range(3), str(table))
    assert (
        "Tasks run in" not in automl("resume", "s", "--store", "../automl.db", "--workdir", ".", "--children", "3").out
    )


def test_another_folder_is_named_and_kept(automl, table, monkeypatch):
    assert automl("search", "s", *TABLES, "--workers", "0", "--children", "1").code == 0
    shutil.move(table / "table.csv", table / "sub" / "table.csv")
    assert automl("resume", "s", "--children", "2", "--workdir", "sub").code == 0
    assert automl("resume", "s", "--children", "3").code == 0
    assert folders(automl, "automl.db")[2] == str(table / "sub")
    shown = automl("show", "s", "--json").json
    assert shown["settings"]["workdir"] == shown["segments"][1]["changes"]["workdir"] == str(table / "sub")
    assert automl("resume", "s", "--children", "4", "--workdir", "none").error == (
        "--workdir is 'none', which is not a folder; name one that exists."
    )
    assert automl("train", "s", "--seeds", "1", "--json").json[0]["metrics"]["folder"] == str(table / "sub")
    shutil.copy(table / "sub" / "table.csv", table / "table.csv")
    again = automl("train", "s", "--seeds", "2", "--json", "--workdir", ".").json
    assert again[1]["metrics"]["folder"] == str(table)


def test_a_folder_that_is_gone(automl, table):
    place = table / "place"
    place.mkdir()
    (place / "table.csv").write_text("2")
    assert automl("search", "s", *TABLES, "--workers", "0", "--children", "1", "--workdir", "place").code == 0
    shutil.rmtree(place)
    for command in (
        ("resume", "s", "--children", "2"),
        ("train", "s"),
        ("export", "s", "--format", "svg", "--to", "a.svg"),
    ):
        assert automl(*command).error == (
            f"{place}, the folder that the tasks of this search run in, cannot be entered (No such file or directory); "
            "name another with --workdir DIR."
        )
    assert len(automl("show", "s", "--json").json["segments"]) == 1
    assert automl("resume", "s", "--children", "2", "--workdir", ".").code == 0


def test_a_search_of_the_first_version_runs_where_its_file_lies(automl, table, monkeypatch):
    assert automl("search", "s", *TABLES, "--workers", "0", "--children", "1").code == 0
    forget(table / "automl.db", "workdir")
    monkeypatch.chdir(table / "sub")
    ran = automl("resume", "s", "--store", "../automl.db", "--children", "2")
    assert ran.code == 0 and f"Tasks run in {table}, the folder of your file; --workdir names another\n" in ran.out


def forget(path, *keys):
    """Removes settings from a store that an earlier version did not write."""
    from automl.db.owner import Owner
    from automl.db.store import Store

    with contextlib.closing(Store(str(path))) as store:
        search = store.searches()[0]
        lease = store.take_lease(search.name, Owner.this_process())
        store.change_settings(lease, {key: value for key, value in search.settings.items() if key not in keys})
        store.release(lease, search.state, search.cause)


def test_a_session_keeps_its_folder(table, monkeypatch):
    asked = {"space": "mine.py:space", "task": "mine.py:evaluate", "controller": "random", "workers": 0}
    package.search("s", **asked, children=1)
    monkeypatch.chdir(table / "sub")
    seen = []
    result = package.resume("s", store="../automl.db", children=2, on_child_end=lambda child: seen.append(os.getcwd()))
    assert (os.getcwd(), seen) == (str(table / "sub"), [str(table / "sub")])
    assert {child.metrics["folder"] for child in result.children if child.metrics} == {str(table)}
    with pytest.raises(ValueError, match="--workdir is 'none', which is not a folder"):
        package.resume("s", store="../automl.db", children=3, workdir="none")
    assert os.getcwd() == str(table / "sub")


def test_a_folder_for_a_search_without_user_code(automl, folder):
    told = "--workdir has no effect on a search that runs no code of yours; drop it."
    assert automl("search", "s", "--task", "digits", "--workdir", ".").error == told


# Data that have moved


FEW = (
    "--workers",
    "0",
    "--controller",
    "random",
    "--set",
    "task.epochs=1",
    "--fix",
    "depth=3",
    "--fix",
    "layer*/num_filters=8",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with a search on a file of arrays."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_digits_data()
    np.savez(folder / "data.npz", x_train=digits.x_train[:200], y_train=digits.y_train[:200])
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    ran = run_automl("search", "s", "--task", "npz:data.npz", "--children", "1", *FEW, folder=folder, env=environment)
    assert ran.code == 0, ran
    return folder


@pytest.fixture
def moved(images, folder):
    """A copy of this folder, whose file is in another folder."""
    (folder / "later").mkdir()
    shutil.copy(images / "automl.db", folder)
    shutil.copytree(images / "automl.db.artefacts", folder / "automl.db.artefacts", dirs_exist_ok=True) if (
        images / "automl.db.artefacts"
    ).is_dir() else None
    shutil.copy(images / "data.npz", folder / "later" / "data.npz")
    path = images / "data.npz"
    path.rename(images / "hidden.npz")
    yield path
    (images / "hidden.npz").rename(path)


def test_data_that_have_moved_are_named_anew(automl, moved, folder):
    gone = f"{moved} is not there any more; say where these data are now with --data npz:PATH."
    assert automl("resume", "s", "--children", "2").error == gone
    assert automl("train", "s", "--seeds", "1").error == gone
    digits = load_digits_data()
    np.savez(folder / "other.npz", x_train=digits.x_train[:200, ::-1], y_train=digits.y_train[:200])
    for flags in (("--task", "npz:other.npz"), ("--data", "npz:other.npz"), ("--data", "other.npz")):
        assert automl("resume", "s", "--children", "2", *flags).error == (
            f"{folder / 'other.npz'} does not hold the data that the search began with; restore them, give their path "
            "with --data npz:PATH, or start a new search with this file."
        )
    assert automl("resume", "s", "--children", "2", "--data", "text:other.txt").error == (
        "The data of this search are npz: and not text:; name them with --data npz:PATH."
    )
    assert automl("resume", "s", "--children", "2", "--data", "none.npz").error == (
        f"--data names {folder / 'none.npz'}, which is not a file; say where the data of this search lie now."
    )
    assert automl("show", "s", "--json").json["settings"]["task"]["name"] == f"npz:{moved}"
    assert automl("resume", "s", "--children", "2", "--task", "npz:later/data.npz").code == 0
    shown = automl("show", "s", "--json").json
    place = f"npz:{folder / 'later' / 'data.npz'}"
    assert shown["settings"]["task"]["name"] == shown["task"] == shown["segments"][1]["changes"]["task.data"] == place
    assert automl("resume", "s", "--children", "3").code == 0


def test_stored_weights_need_no_data(automl, moved, folder):
    ran = automl("export", "s", "--format", "keras", "--to", "best.keras")
    assert ran.code == 0 and (folder / "best.keras").is_file()
    assert (
        f"; it was not checked ({moved} is not there any more; say where these data are now with --data npz:" in ran.out
    )
    ran = automl("export", "s", "--format", "keras", "--to", "checked.keras", "--data", "later/data.npz")
    assert ", as in the search (" in ran.out
    assert automl("export", "s", "--format", "python", "--to", "best.py").code == 0
    np.savez(folder / "other.npz", x_train=np.zeros((20, 8, 8)), y_train=np.arange(20) % 2)
    refused = automl("export", "s", "--format", "keras", "--to", "a.keras", "--data", "other.npz").error
    assert refused.startswith(f"{folder / 'other.npz'} does not hold the data that the search began with")
    assert not (folder / "a.keras").exists()


def test_trainings_are_recognised_wherever_the_data_are(automl, moved, folder):
    flags = ("--seeds", "1", "--set", "epochs=1", "--json")
    first = automl("train", "s", *flags, "--data", "later/data.npz").json
    shutil.move(folder / "later" / "data.npz", folder / "data.npz")
    assert automl("train", "s", *flags, "--data", "data.npz").json == first


def test_a_search_without_data_of_the_user_s(automl, mine, folder):
    from command_line import OURS

    assert automl("search", "s", *OURS, "--workers", "0", "--children", "1").code == 0
    for flag in ("--task", "--data"):
        assert automl("resume", "s", "--children", "2", flag, "npz:a.npz").error == (
            f"The task mine.py:evaluate reads no data of yours; drop {flag}."
        )


def test_arrays_move_together_with_their_store(folder, monkeypatch):
    digits = load_digits_data()
    asked = {"workers": 0, "controller": "random", "set": ["task.epochs=1", "task.batch_size=8"], "fix": ["depth=3"]}
    package.search("s", x=digits.x_train[:64], y=digits.y_train[:64], children=1, **asked)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for name in [path for path in folder.iterdir() if path.name.startswith("automl.db")]:
        shutil.move(name, elsewhere / name.name)
    monkeypatch.chdir(elsewhere)
    result = package.resume("s", children=2)
    assert result.best.search.settings["task"]["name"] == f"npz:{elsewhere / 'automl.db.data' / 's.npz'}"
    assert result.best.model().input_shape == (None, 8, 8, 1)


WORDS = "the cat sat on the mat and the dog lay by the door while rain fell on the roof\n"


def test_a_text_that_has_moved(automl, folder):
    rows = [" ".join(WORDS.split()[i % 7 :]) for i in range(400)]
    (folder / "novel.txt").write_text("\n".join(rows))
    small = (
        "task.epochs=1",
        "task.num_train=null",
        "task.num_validation=null",
        "task.parameters=20000",
        "space.base=4",
    )
    flags = ("--space", "recurrent-cell", "--controller", "random", "--workers", "0", "--children", "1")
    sets = [flag for name in small for flag in ("--set", name)]
    assert automl("search", "s", *flags, *sets, "--task", "text:novel.txt").code == 0
    assert automl("show", "s", "--json").json["settings"]["task"]["reading"]["types"] < 30
    (folder / "novel.txt").rename(folder / "book.txt")
    ran = automl("export", "s", "--format", "keras", "--to", "best.keras")
    assert (
        ran.code == 0
        and "novel.txt is not there any more; say where these data are now with --data text:PATH" in ran.out
    )
    ran = automl("export", "s", "--format", "keras", "--to", "best.keras", "--force", "--data", "text:book.txt")
    assert ran.code == 0 and ", as in the search (" in ran.out
    (folder / "other.txt").write_text("\n".join(rows).replace("cat", "hen"))
    assert automl("resume", "s", "--children", "2", "--task", "text:other.txt").error.endswith(
        "restore the old one, give its path with --data text:PATH, or start a new search with this one."
    )
    assert automl("resume", "s", "--children", "2", "--task", "text:book.txt").code == 0
