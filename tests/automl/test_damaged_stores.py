"""A store with values that automl never writes, damaged or made by hand: each command answers with one sentence."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import OURS

from automl.db.records import StoreError
from automl.db.schema import Row
from automl.settings.stored import ADDED_LATER
from automl.settings.stored_form import check_settings

INLINE = ("--workers", "0")
CODES = {0, 1, 3, 4}
COMMANDS = (
    ("list",),
    ("show", "mine"),
    ("top", "mine"),
    ("watch", "mine"),
    ("logs", "mine", "0"),
    ("doctor",),
    ("export", "mine", "--format", "json", "--to", "child.json", "--force"),
    ("resume", "mine", "--children", "4", *INLINE),
    ("delete", "mine", "--yes"),
)
VALUES: tuple[Any, ...] = (
    *("text", "\x1b[31m", "", -1, 0, 2**62, 1.5, 1e308, b"\xff\x00", None),
    *("{}", "[]", "3", '"x"', "null", "[1,", '{"a": NaN}', '{"a": [1e999]}', '{"\x1b": {"a": []}}', "[" * 100_000),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """The folder with the store of a search of three children."""
    return tmp_path_factory.mktemp("stored") / "automl.db"


@pytest.fixture
def store(stored, automl, mine, folder) -> Path:
    """A copy of that store, for each test in the folder of the user's file."""
    if not stored.exists():
        assert automl("search", "mine", *OURS, *INLINE, "--children", "3").code == 0
        shutil.copy(folder / "automl.db", stored)
    return folder / "automl.db"


def answers(automl, store: Path, stored: Path, change: str, values: tuple[Any, ...]) -> None:
    """Runs every command on the store after a change, and checks that it answers with one sentence."""
    for beside in ("-wal", "-shm"):
        store.with_name(f"{store.name}{beside}").unlink(missing_ok=True)
    shutil.copy(stored, store)
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        try:
            connection.execute(change, values)
        except sqlite3.IntegrityError:
            return  # the schema keeps this value out
    for command in COMMANDS:
        ran = automl(*command)
        told = (change, values, command, ran)
        assert ran.code in CODES, told
        assert "--debug" not in ran.err and "Traceback" not in ran.out + ran.err, told
        assert len(ran.err.splitlines()) <= 1 and "\x1b" not in ran.out + ran.err, told


def columns() -> Iterator[tuple[str, str]]:
    for table in Row.metadata.sorted_tables:
        for column in table.columns:
            yield table.name, column.name


TRIALS = random.Random(0).sample([(*place, value) for place in columns() for value in VALUES], 8)


def test_columns_with_values_that_are_never_written(automl, store, stored):
    for table, column, value in TRIALS:
        answers(automl, store, stored, f"UPDATE {table} SET {column} = ?", (value,))  # noqa: S608


# Without a check, each of these ends a command with a traceback.
KNOWN = {
    "searches.name": b"\xff\x00",
    "searches.settings": "{}",
    "searches.owner": '{"pid": "x"}',
    "searches.created": 1e308,
    "searches.refused": '{"repeat": "x"}',
    "searches.budget": "text",
    "children.metrics": '{"worth": 1e999}',
    "children.tokens": '["x"]',
    "children.spec": "[1,",
    "children.reward": "text",
    "segments.changes": "[]",
    "steps.figures": '{"probabilities": {"digit": 3}, "entropy": 0.5, "proposed": 3}',
    "measurements.metrics": "[" * 100_000,
    "attempts.log": b"\xff\x00",
}


@pytest.mark.parametrize("place", KNOWN)
def test_values_that_are_known_to_be_trouble(automl, store, stored, place):
    table, _, column = place.partition(".")
    answers(automl, store, stored, f"UPDATE {table} SET {column} = ?", (KNOWN[place],))  # noqa: S608


BROKEN = {  # a change of one of two searches, and what its message says
    "UPDATE searches SET created = 1e308 WHERE name = 'mine'": None,  # a number, and no date
    "UPDATE searches SET budget = 'text' WHERE name = 'mine'": "The search 'mine' cannot be read: the store holds a "
    "search whose budget is 'text', which automl never writes",
    "UPDATE searches SET settings = '[1,' WHERE name = 'mine'": "The search 'mine' cannot be read: the store holds a "
    "value that is not JSON",
    "UPDATE searches SET name = x'ff' WHERE name = 'mine'": "The search 'number 1' cannot be read: the store holds a ",
    "UPDATE children SET reward = 'text' WHERE search_id = 1": "The search 'mine' cannot be read: the store holds a "
    "child whose reward is 'text'",
    "UPDATE searches SET budget = 'text'": "2 searches cannot be read, 'mine', 'other'; the first one: the store holds",
}


@pytest.mark.parametrize("change", BROKEN)
def test_the_other_searches_are_listed(automl, store, stored, change):
    shutil.copy(stored, store)
    assert automl("search", "other", *OURS, *INLINE, "--children", "1").code == 0
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(change)
    for flags in ((), ("--json",)):
        ran = automl("list", *flags)
        if BROKEN[change] is None:
            assert ran.code == 0 and "mine" in ran.out and "other" in ran.out
            continue
        assert ran.error.startswith(BROKEN[change])
        rows = (
            [row["name"] for row in json.loads(ran.out)]
            if flags
            else [line.split()[0] for line in ran.out.splitlines()[1:]]
        )
        assert rows == ([] if change.endswith("'text'") else ["other"])


@pytest.mark.parametrize("change", BROKEN)
def test_doctor_checks_the_other_searches(automl, store, stored, change):
    shutil.copy(stored, store)
    assert automl("search", "other", *OURS, *INLINE, "--children", "1").code == 0
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(change)
    ran = automl("doctor", "--json")
    found = {finding["subject"]: finding["well"] for finding in json.loads(ran.out)}
    searches = {subject: well for subject, well in found.items() if subject.startswith("search ")}
    if BROKEN[change] is None:
        expected = {"search mine": True, "search other": True}
    elif "name = x'ff'" in change:
        expected = {"search number 1": False, "search other": True}
    else:
        # The last change is of all searches; a wrong reward is no part of what is checked here.
        expected = {"search mine": "children" in change, "search other": not change.endswith("budget = 'text'")}
    assert searches == expected and ran.code == (0 if all(found.values()) else 1)


# Settings


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path to each setting, and to each group of settings."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from paths(value[name], (*path, name))


def changed(settings: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    found = copy.deepcopy(settings)
    place = found
    for name in path[:-1]:
        place = place[name]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return found


MISSING = object()
STRANGE = ("x", "", -1, 0, 2**70, 1.5, None, True, [], ["x"], {}, {"x": 1}, MISSING)


def test_settings_of_another_form_are_refused_by_name(store, stored):
    with contextlib.closing(sqlite3.connect(stored)) as connection:
        (text,) = connection.execute("SELECT settings FROM searches").fetchone()
    settings = json.loads(text)
    check_settings(settings, started=True)
    refused = set()
    for path in paths(settings):
        for value in STRANGE:
            if value is MISSING and not (path and path[0] not in ADDED_LATER):
                continue
            try:
                check_settings(changed(settings, path, value), started=True)
            except StoreError as error:
                name = ".".join(path)
                told = "behaviour" if path[:1] == ("behaviour",) else name
                assert f": {told}" in str(error), (path, value, error)
                refused.add(name)
    every = {".".join(path) for path in paths(settings) if path}
    versions = {f"behaviour.{name}" for name in settings["behaviour"]}
    assert every - refused <= versions, every - refused


@pytest.mark.parametrize(
    "path", ["run", "task", "task.goal", "task.file", "task.name", "space.file.path", "limits", "controller.preset"]
)
def test_commands_answer_whatever_the_settings_are(automl, store, stored, path):
    with contextlib.closing(sqlite3.connect(stored)) as connection:
        (text,) = connection.execute("SELECT settings FROM searches").fetchone()
    for value in ("../x", {"x": 1}, 3):
        other = changed(json.loads(text), tuple(path.split(".")), value)
        answers(automl, store, stored, "UPDATE searches SET settings = ?", (json.dumps(other),))
