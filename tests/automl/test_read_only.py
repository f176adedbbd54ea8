"""A store that cannot be written: commands that only read work, and the others say why they cannot."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import OURS, files_in

from automl.db.read_only import ReadOnlyFile
from automl.db.records import StoreError
from automl.db.store import Store

ROOT = Path(__file__).parents[2]
# Runs commands one after the other, and prints the result of each.
RUN = """
import contextlib, io, json, sys
from automl.cli.app import main
told = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["automl", *command]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""
# As root, permissions do not hold; a mount that is read-only does. It is this process's own and ends with it.
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@"'


def run_where_nothing_can_be_written(folder: Path, *commands: tuple[object, ...]) -> list[tuple[int, str, str]]:
    python = [sys.executable, "-c", RUN, json.dumps([list(map(str, command)) for command in commands])]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    mode = folder.stat().st_mode
    if os.geteuid() == 0:
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        python = ["unshare", "-m", "sh", "-c", MOUNT, str(folder), *python]
    else:
        folder.chmod(0o555)
    try:
        done = subprocess.run(python, cwd=folder, capture_output=True, text=True, env=environment, timeout=240)
    finally:
        folder.chmod(mode)
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture
def searched(automl, mine, folder) -> Path:
    """A store with the search `mine`, of three children."""
    assert automl("search", "mine", *OURS, "--workers", "0", "--children", "3").code == 0
    return folder / "automl.db"


NOTE = "Note: sqlite:///automl.db is read without locks, since "


def test_reading_commands_work_and_writing_ones_say_why_not(searched, folder, tmp_path):
    before, elsewhere = files_in(folder), tmp_path / "child.json"
    reading: dict[tuple[object, ...], str] = {
        ("list",): "3/3",
        ("list", "--json"): '"num_trained": 3',
        ("show", "mine"): "mine: finished",
        ("top", "mine"): "[3, 3, 1, 3, 1]",
        ("watch", "mine"): "mine is finished: 3 children trained.",
        ("logs", "mine", 0): "== attempt 1 of child 0",
        ("export", "mine", "--format", "json", "--to", elsewhere): "Exported child 0 of mine",
        ("doctor",): "search mine: finished",
    }
    writing = [
        ("resume", "mine", "--children", 4),
        ("stop", "mine"),
        ("propose", "mine", "--tokens", "0,0,0,0,0"),
        ("train", "mine"),
        ("retry", "mine"),
        ("delete", "mine", "--yes"),
        ("search", "other", *OURS),
        ("search", "other", *OURS, "--store", "new.db"),
    ]
    told = run_where_nothing_can_be_written(folder, *reading, *writing)
    for (command, expected), (code, out, err) in zip(reading.items(), told, strict=False):
        assert code == 0 and (command == ("doctor",) or err.startswith(NOTE)), (command, out, err)
        assert expected in out, (command, out)
    assert json.loads(elsewhere.read_text())["number"] == 0
    for command, (code, _, err) in zip(writing, told[len(reading) :], strict=True):
        (line,) = err.splitlines()
        verb = "made" if "new.db" in command else "written"
        assert code == 1 and f" cannot be {verb}: " in line, (command, err)
        assert "mounted read-only" in line or "you may not write in the folder" in line
        assert verb == "made" or "It can be read." in line
    assert files_in(folder) == before


def test_a_store_whose_last_transactions_are_not_in_the_file_is_read_whole(mine, folder):
    """Its process was killed, so they are in the file beside the store."""
    code = (
        "import os, signal\nfrom db.store import Store\nimport automl\n"
        "keep = Store('automl.db', create=True)\n"
        "own = {'space': 'mine.py:space', 'task': 'mine.py:evaluate', 'controller': 'random'}\n"
        "automl.search('mine', **own, workers=0, children=3)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (folder / "automl.db-wal").stat().st_size > 0
    (folder / "automl.db-shm").unlink(missing_ok=True)  # as if the user had copied only the other two
    before = files_in(folder)
    ((code, out, err),) = run_where_nothing_can_be_written(folder, ("list", "--json"))
    assert code == 0 and err.startswith(NOTE)
    assert json.loads(out)[0]["num_trained"] == 3
    assert files_in(folder) == before and (folder / "automl.db-wal").exists()


def test_an_older_store_says_that_it_must_be_copied(folder):
    shutil.copy(ROOT / "tests" / "db" / "assets" / "0003.sqlite", folder / "automl.db")
    ((code, _, err),) = run_where_nothing_can_be_written(folder, ("list",))
    assert code == 1 and "has schema 0003" in err and "copy it to a folder of yours" in err and "any `automl" not in err


# How the file is opened, tested without a file system of its own


class Unwritable(ReadOnlyFile):
    """A file in a folder where SQLite cannot create its lock files."""

    def connect(self) -> sqlite3.Connection:
        return self._without_locks()


@pytest.fixture
def file(searched) -> Unwritable:
    return Unwritable(searched, busy_seconds=1.0)


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM searches ORDER BY name")]


def test_a_file_without_a_wal_is_read_in_place(file, searched, folder):
    before = files_in(folder)
    with contextlib.closing(file.connect()) as connection:
        assert names(connection) == ["mine"]
        assert file.is_snapshot and not file.has_changed()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM searches")
    assert files_in(folder) == before and not (folder / "automl.db-shm").exists()


def test_a_file_with_transactions_beside_it_is_read_from_a_copy(file, searched):
    with contextlib.closing(sqlite3.connect(searched)) as writer:
        writer.execute("UPDATE searches SET name = 'renamed'")
        writer.commit()
        with contextlib.closing(file.connect()) as connection:
            assert names(connection) == ["renamed"] and not file.has_changed()
            writer.execute("UPDATE searches SET name = 'again'")
            writer.commit()
            assert file.has_changed()
        with contextlib.closing(file.connect()) as connection:
            assert names(connection) == ["again"] and not file.has_changed()
    copies = [Path(copy.name) for copy in file._copies]
    file.close()
    assert len(copies) == 2 and not any(copy.exists() for copy in copies)


def test_transactions_beside_the_file_that_a_link_leads_to_are_read(searched, tmp_path, monkeypatch):
    monkeypatch.setattr("automl.db.database.ReadOnlyFile", Unwritable)
    (tmp_path / "link.db").symlink_to(searched)
    with contextlib.closing(sqlite3.connect(searched)) as writer:
        writer.execute("UPDATE searches SET name = 'renamed'")
        writer.commit()
        with contextlib.closing(Store(tmp_path / "link.db", readonly=True)) as store:
            assert [search.name for search in store.searches()] == ["renamed"]


def test_a_concurrent_write_is_never_shown_torn(searched, monkeypatch):
    monkeypatch.setattr("automl.db.database.ReadOnlyFile", Unwritable)

    def write(name):
        with contextlib.closing(sqlite3.connect(searched)) as writer, writer:
            writer.execute("UPDATE searches SET name = ?", (name,))

    with contextlib.closing(Store(str(searched), readonly=True)) as store:
        assert [search.name for search in store.searches()] == ["mine"]
        write("renamed")
        assert [search.name for search in store.searches()] == ["renamed"]
        with pytest.raises(StoreError, match="was written while it was read; try again"), store._read():
            write("again")
        assert [search.name for search in store.searches()] == ["again"]


def test_a_file_that_can_be_locked_is(searched):
    reader = ReadOnlyFile(searched, busy_seconds=1.0)
    with contextlib.closing(reader.connect()) as connection:
        assert names(connection) == ["mine"] and not reader.is_snapshot
