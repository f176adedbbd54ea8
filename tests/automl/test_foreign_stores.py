"""A store from another person: it can be shown and deleted, reaches no file, and cannot control the terminal."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import platform
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import OURS, files_in

from automl.cli.commands import resume_command
from automl.db import blobs
from automl.db.store import Store
from automl.surroundings import working_in

INLINE = ("--workers", "0")
ASSETS = Path(__file__).parents[1] / "db" / "assets"
NAMES = ["../victim", "..", ".", "a/../../victim", "", "\x1b]0;owned\x07", "\u202egnp", "two\nlines", "n" * 101]


@pytest.fixture
def victim(folder: Path) -> Path:
    """Files of the user, with the names of a search's files."""
    place = folder / "victim"
    (place / "checkpoints").mkdir(parents=True)
    for name in ("file", "worker-0.log", "checkpoints/child-0.checkpoint"):
        (place / name).write_text("mine")
    (folder / "victim.npz").write_text("mine")
    return place


def change(path: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement, values if "?" in statement else ())


@pytest.fixture
def searched(automl, mine, folder) -> Path:
    """A store with the search `mine`, of three children."""
    assert automl("search", "mine", *OURS, *INLINE, "--children", "3").code == 0
    return folder / "automl.db"


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_that_no_search_is_given_reaches_no_file(automl, searched, victim, folder, name):
    (folder / "automl.db.logs").mkdir(exist_ok=True)
    change(searched, "UPDATE searches SET name = ?", values=(name,))
    before = files_in(folder)
    listed, shown = automl("list"), automl("show", "--", name)
    assert listed.code == shown.code == 0
    assert len(listed.out.splitlines()) == 2 and "\x1b" not in listed.out + shown.out
    assert automl("list", "--json").json[0]["name"] == name
    assert automl("logs", "--", name, "0").code == 0
    refused = automl("resume", "--children", "4", *INLINE, "--", name)
    assert refused.error.startswith("The store has a search called ") and "\x1b" not in refused.err
    assert {path: content for path, content in files_in(folder).items() if path != "automl.db"} == {
        path: content for path, content in before.items() if path != "automl.db"
    }
    assert automl("show", "--json", "--", name).json["state"] == "finished"  # and not paused
    assert automl("delete", "--yes", "--", name).code == 0
    assert automl("list", "--json").json == []
    assert (victim / "file").read_text() == (folder / "victim.npz").read_text() == "mine"
    assert sorted(path.name for path in victim.rglob("*")) == [
        "checkpoints",
        "child-0.checkpoint",
        "file",
        "worker-0.log",
    ]


@pytest.mark.parametrize("link", ["automl.db.logs", "automl.db.logs/mine", "automl.db.logs/mine/checkpoints"])
def test_a_link_in_place_of_a_folder_of_ours_is_not_followed(automl, searched, victim, folder, link):
    shutil.rmtree(folder / "automl.db.logs", ignore_errors=True)
    place = folder / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if link.endswith(".logs"):  # it would lead to victim/mine
        (victim / "mine" / "checkpoints").mkdir(parents=True)
        (victim / "mine" / "worker-0.log").write_text("mine")
        (victim / "mine" / "checkpoints" / "child-0.checkpoint").write_text("mine")
    place.symlink_to(victim / "checkpoints" if link.endswith("checkpoints") else victim)
    before = files_in(victim)
    if not link.endswith("checkpoints"):
        ran = automl("resume", "mine", "--children", "4", "--workers", "1")
        assert ran.error == (
            f"The log {folder / 'automl.db.logs' / 'mine' / 'worker-0.log'} cannot be written: it is, or lies behind, "
            "a link, which automl does not follow here."
        )
    assert automl("delete", "mine", "--yes").code == 0
    assert files_in(victim) == before


def test_a_log_or_a_checkpoint_that_is_a_link_is_not_followed(automl, searched, victim, folder):
    logs = folder / "automl.db.logs" / "mine"
    (logs / "checkpoints").mkdir(parents=True, exist_ok=True)
    (logs / "worker-0.log").unlink(missing_ok=True)
    (logs / "worker-0.log").symlink_to(victim / "file")
    (logs / "checkpoints" / "child-0.checkpoint").symlink_to(victim / "file")
    refused = automl("resume", "mine", "--children", "4", "--workers", "1")
    assert refused.error.startswith(f"The log {logs / 'worker-0.log'} cannot be written: it is, or lies behind, a link")
    assert automl("delete", "mine", "--yes").code == 0
    assert (victim / "file").read_text() == "mine" and not logs.exists()


def with_weights_in_a_file(folder: Path, path: str) -> tuple[Path, str, bytes]:
    """A store of 0.1.0 that names a path for the best child's weights; returns their name and content."""
    store = Path(shutil.copy(ASSETS / "0003.sqlite", folder / "automl.db"))
    weights = blobs.pack({"w": np.full((2, 2), 0.5, np.float32)})
    checksum = hashlib.sha256(weights).hexdigest()
    change(
        store,
        "UPDATE artefacts SET blob = NULL, path = ?, sha256 = ? WHERE kind = 'search'",
        values=(path, checksum),
    )
    change(store, "UPDATE searches SET owner = NULL, lease_until = NULL, state = 'paused'")
    return store, f"1-search-{checksum}.npz", weights


def test_weights_are_found_by_their_checksum_and_never_by_a_stored_path(automl, folder, victim):
    store, name, weights = with_weights_in_a_file(folder, str(victim / "file"))
    with contextlib.closing(Store(str(store), upgrade=True)) as opened:
        (best,) = opened.top(opened.search("old").id, 1)
        with pytest.raises(Exception, match=r"The weights file .*automl\.db\.artefacts.* cannot be read: No such file"):
            opened.weights(best.id)
        (folder / "automl.db.artefacts").mkdir()
        (folder / "automl.db.artefacts" / name).write_bytes(weights)
        np.testing.assert_array_equal(opened.weights(best.id)["w"], np.full((2, 2), 0.5, np.float32))
    assert automl("delete", "old", "--yes").code == 0
    assert (victim / "file").read_text() == "mine"
    assert not (folder / "automl.db.artefacts" / name).exists()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sha256", "../../victim/file"),
        ("sha256", "0" * 63 + "/"),
        ("kind", "../../../victim/file"),
        ("kind", "search/x"),
    ],
)
def test_a_row_of_weights_that_automl_never_writes_names_no_file(automl, folder, victim, column, value):
    store, _, _ = with_weights_in_a_file(folder, "")
    with contextlib.closing(Store(str(store), upgrade=True)) as opened:
        (best,) = opened.top(opened.search("old").id, 1)
    change(store, f"UPDATE artefacts SET {column} = ? WHERE kind = 'search'", values=(value,))  # noqa: S608
    with contextlib.closing(Store(str(store))) as opened, pytest.raises(Exception, match="that automl never writes"):
        opened.weights(best.id, value if column == "kind" else "search")
    before = files_in(victim)
    assert automl("delete", "old", "--yes").code == 0
    assert files_in(victim) == before


def test_links_among_the_weights_are_not_followed(automl, folder, victim):
    _, name, _ = with_weights_in_a_file(folder, "")
    (folder / "automl.db.artefacts").mkdir()
    (folder / "automl.db.artefacts" / name).symlink_to(victim / "file")
    with contextlib.closing(Store("automl.db", upgrade=True)) as opened:
        (best,) = opened.top(opened.search("old").id, 1)
        with pytest.raises(Exception, match="cannot be read: it is, or lies behind, a link"):
            opened.weights(best.id)
    assert automl("delete", "old", "--yes").code == 0
    assert (victim / "file").read_text() == "mine" and not (folder / "automl.db.artefacts" / name).is_symlink()


def test_nothing_is_imported_from_the_folder_that_a_store_names(tmp_path, monkeypatch):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "imported_late.py").write_text(f"where = {folder.name!r}\n")
    monkeypatch.chdir(mine)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in an interactive session
    before = list(sys.path)
    with working_in(str(theirs)):
        assert Path.cwd() == theirs
        assert importlib.import_module("imported_late").where == "mine"
    del sys.modules["imported_late"]
    assert sys.path == before and Path.cwd() == mine


STEERING = "\x1b]0;owned\x07\x9b2J\u202e"


def test_nothing_stored_steers_the_terminal(automl, searched):
    change(
        searched,
        "UPDATE searches SET cause = ?, space = ?, task = ?, controller = ?".replace("?", "?1"),
        "UPDATE children SET worker = ?1, spec = json_array(?1), metrics = json_object(?1, 0.5), message = ?1",
        "UPDATE attempts SET log = ?1 || char(10) || 'next', worker = ?1, device = ?1",
        "UPDATE segments SET ending = ?1, changes = json_object(?1, 1)",
        values=(STEERING,),
    )
    change(searched, "UPDATE children SET state = 'failed', fault = ? WHERE number = 2", values=(STEERING,))
    for command in (("list",), ("show", "mine"), ("top", "mine"), ("watch", "mine"), ("logs", "mine", "0")):
        ran = automl(*command)
        assert ran.code == 0, (command, ran)
        assert "\\x1b]0;owned\\x07\\x9b2J\\u202e" in ran.out, command
        assert not set(STEERING[0] + "\x07\x9b\u202e") & set(ran.out + ran.err), command


@pytest.mark.parametrize(("task", "data"), [("cifar10", "CIFAR-10"), ("ptb", "The Penn Treebank")])
def test_nothing_is_downloaded_to_a_folder_that_only_a_store_names(automl, searched, victim, task, data):
    with contextlib.closing(sqlite3.connect(searched)) as connection:
        (text,) = connection.execute("SELECT settings FROM searches").fetchone()
    settings = json.loads(text)
    settings["task"] |= {"name": task, "file": None, "data_dir": str(victim), "constants": None}
    settings["space"] |= {"name": "recurrent-cell" if task == "ptb" else "convnet", "preset": None, "file": None}
    change(searched, "UPDATE searches SET settings = ?", values=(json.dumps(settings),))
    before = files_in(victim)
    refused = automl("resume", "mine", "--children", "4", *INLINE).error
    assert refused.startswith(f"{data} is not in {victim}") and "only to a folder that --data-dir" in refused
    assert files_in(victim) == before
    assert automl("show", "mine", "--json").json["state"] == "finished"


def test_no_signal_goes_to_a_process_that_a_store_names(automl, searched):
    """A process with this number, whatever it is, does not hold another person's search either."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for owner in (
            {"pid": other.pid},
            {"pid": f"{other.pid}/../..", "host": platform.node(), "boot": "", "started": 1},
        ):
            change(
                searched,
                "UPDATE searches SET state = 'running', lease_until = 1, owner = ?",
                values=(json.dumps(owner),),
            )
            for command in (("stop", "mine"), ("list",), ("doctor",), ("show", "mine")):
                ran = automl(*command)
                assert ran.code in (0, 1) and "--debug" not in ran.err, (command, ran)
            assert automl("resume", "mine", "--children", "4", *INLINE).code == 0
        assert other.poll() is None
        other.communicate(b"\n")


@pytest.mark.parametrize("name", ["x; touch owned", "$(touch owned)", "a b", "--yes"])
def test_a_suggested_command_can_be_typed_whatever_the_name(automl, searched, folder, name):
    change(searched, "UPDATE searches SET name = ?, state = 'paused'", values=(name,))
    (line,) = [line for line in automl("doctor").out.splitlines() if "search " in line and name in line]
    command = re.search(r"automl resume (.*) continues it", line)[1]
    assert shlex.split(command) == [name]
    with contextlib.closing(Store(str(searched), readonly=True)) as store:
        assert shlex.split(resume_command(store, name))[:3] == ["automl", "resume", name]
