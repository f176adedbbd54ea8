"""The findings of `doctor`, which changes nothing. test_interrupts.py tests its finding about dead coordinators."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3

import pytest
from command_line import MINE, OURS, files_in

INLINE = ("--workers", "0")


@pytest.fixture
def doctor(automl):
    """Runs `doctor`; returns its exit code and what it found, by subject."""

    def doctor(*flags):
        ran = automl("doctor", "--json", *flags)
        assert ran.err == ""
        return ran.code, {finding["subject"]: finding for finding in json.loads(ran.out)}

    return doctor


def test_a_healthy_machine(automl, doctor, mine, folder):
    assert automl("search", "mine", *OURS, "--children", "2", *INLINE).code == 0
    before = files_in(folder)
    code, found = doctor()
    assert code == 0 and all(finding["well"] for finding in found.values())
    assert list(found) == ["installation", "devices", "data", "store", "search mine"]
    assert "tensorflow " in found["installation"]["found"] and "python " in found["installation"]["found"]
    assert "cores; a search starts " in found["devices"]["found"]
    assert found["store"]["found"] == "sqlite:///automl.db can be read and is not damaged"
    assert found["search mine"]["found"] == (
        "finished: 6 ready, 2 trained; automl resume mine --children N continues it"
    )
    assert files_in(folder) == before
    lines = automl("doctor").out.splitlines()
    assert len(lines) == 5 and all(line.startswith("ok  ") for line in lines)


def test_a_paused_search(automl, doctor, mine):
    mine.write_text(MINE + "\ndef broken(spec):\n    raise RuntimeError('no data')\n")
    flags = ("--space", "mine.py:space", "--task", "mine.py:broken", "--controller", "random")
    assert automl("search", "mine", *flags, "--children", "9", *INLINE).code == 3
    code, found = doctor()
    assert code == 0
    assert found["search mine"]["found"].startswith(
        "paused (The first 3 children failed (raised: RuntimeError: no data)"
    )
    assert found["search mine"]["found"].endswith(
        "5 ready, 3 failed; automl resume mine continues it to 9 children"
    )  # fmt: skip


def test_without_a_store(automl, doctor, folder):
    code, found = doctor()
    assert code == 1
    assert not found["store"]["well"] and "There is no store at" in found["store"]["found"]
    lines = automl("doctor").out.splitlines()
    assert lines[-2].startswith("NO  store: There is no store at") and lines[-1] == "     name another with --store"
    assert files_in(folder) == {}


def test_a_damaged_page(automl, doctor, mine, folder):
    """The file can be opened and seems sound until every page is read."""
    assert automl("search", "mine", *OURS, "--children", "40", *INLINE).code == 0
    path = folder / "automl.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    code, found = doctor()
    assert code == 1
    assert not found["store"]["well"] and "is damaged" in found["store"]["found"]
    assert found["store"]["advice"] == "restore it from a backup"


def test_data(doctor, folder):
    assert doctor()[1]["data"]["found"].startswith("no --data-dir or AUTOML_DATA")
    assert doctor("--data-dir", "none")[1]["data"] == {
        "subject": "data",
        "well": False,
        "found": "none is not a folder",
        "advice": "name the folder that holds cifar-10-batches-py",
    }
    (folder / "data" / "cifar-10-batches-bin").mkdir(parents=True)
    assert doctor("--data-dir", "data")[1]["data"]["found"] == "data holds cifar-10-batches-bin"
    os.environ["AUTOML_DATA"] = str(folder)
    assert doctor()[1]["data"]["found"] == f"{folder} holds no CIFAR-10 (it would be downloaded there)"
