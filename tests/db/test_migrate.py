"""Schemas: the newest equals the tables, older stores are upgraded to it, and a kill leaves the old store."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from store_helpers import (
    START,
    THERE,
    Clock,
    claim,
    dump,
    files_under,
    make_child,
    make_search,
    make_step,
    make_training,
    packed,
    trained,
)

from automl.db import database as database_module
from automl.db import engine as engine_module
from automl.db import migrate
from automl.db.records import State, StoreError
from automl.db.schema import REVISION, Row
from automl.db.store import Store, training_kind

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"
DIGEST = "00a3fd45bb98ae28888a9eaae0435ebdc1484bd92862dce25bd4825bf074c29d"
OLD_DIGESTS = {"0001": DIGEST, "0002": DIGEST, "0003": DIGEST}  # of the search in assets/REVISION.sqlite


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def test_the_newest_migration_is_the_schemas_revision() -> None:
    assert scripts().get_heads() == [REVISION]


def test_migration_files_are_named_after_their_revisions() -> None:
    revisions = {script.revision for script in scripts().walk_revisions()}
    assert engine_module._known_revisions() == revisions


def test_migrations_make_what_the_tables_say(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Row.metadata) == []


def test_a_store_that_is_up_to_date_is_unchanged(sqlite_path: Path) -> None:
    before = sqlite_path.read_bytes()
    Store(str(sqlite_path), create=True).close()
    assert sqlite_path.read_bytes() == before
    assert not list(sqlite_path.parent.glob("*.bak*"))


def test_settings_of_a_new_file(tmp_path: Path) -> None:
    with (
        contextlib.closing(Store(str(tmp_path / "new.db"), create=True)) as store,
        store._engine.connect() as connection,
    ):
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}


# Stores of earlier versions


@pytest.mark.parametrize("revision", OLD_DIGESTS)
def test_a_store_of_an_earlier_version_goes_on(tmp_path: Path, revision: str) -> None:
    path = shutil.copy(ASSETS / f"{revision}.sqlite", tmp_path / "store.db")
    clock = Clock()
    with contextlib.closing(Store(str(path), create=True, clock=clock)) as store:
        search = store.search("old")
        assert (search.budget, search.num_trained, search.refused, search.unclean) == (3, 1, {"repeat": 2}, 0)
        assert store.digest(search.id) == OLD_DIGESTS[revision]
        states = [child.state for child in store.children(search.id)]
        assert states == [State.TRAINED, State.FAILED, State.RUNNING, State.READY, State.READY]
        (best,) = store.top(search.id, 1)
        assert [row.metrics for row in store.measurements(best.id)] == [{"accuracy": 0.5}]
        np.testing.assert_array_equal(store.weights(best.id)["w"], np.full((2, 2), 0.5, np.float32))
        assert [segment.workers for segment in store.segments(search.id)] == [2]
        if revision == "0001":
            assert (search.stop_requested, best.phases) == (None, None)
            assert store.requests(search.id) == store.trainings(best.id) == []
        else:
            assert (search.stop_requested, best.phases) == (START, {"compile": 1.0, "train": 2.0})
            (request,) = store.requests(search.id)
            assert request.tokens == [2, 1]
            assert store.trainings(best.id) == [make_training(best.id, finished=START)]
            kind = training_kind("long", make_training(best.id).seed)
            np.testing.assert_array_equal(store.weights(best.id, kind)["w"], np.full((2, 2), 0.75, np.float32))
        store.check()
        clock.pass_seconds(60)
        lease = store.take_lease("old", THERE)
        assert not store.progress(search.id).stop_requested
        again = claim(store, search)
        assert again.number == 2
        assert store.deliver(again, dataclasses.replace(trained(0.75), phases={"train": 2.0}))
        assert claim(store, search).number == 3
        mine = store.request_child("old", (5, 1))
        store.commit_step(lease, make_step(2), {}, [make_child(5, batch=1)], {}, {mine.id: 5})
        assert store.requests(search.id, answered=True)[-1].child == 5
        store.keep_training(make_training(best.id), packed(0.25))
        assert store.trainings(best.id) == [make_training(best.id, finished=clock.now)]
    copy = tmp_path / f"store.db.{revision}.bak"
    assert copy.exists() == (revision != REVISION)


EARLY = {"stopped": 2, "accuracy": 0.5}  # what a worker of 0.1.0 delivered for a child whose last epoch was the second
ENDED = {"ended": "hopeless", "screened": True, "accuracy": 0.5}


@pytest.mark.parametrize(
    ("settings", "metrics", "expected"),
    [
        # Metrics, then stopped_at, ending and screened.
        ({"early_stop": "median"}, EARLY, ({"accuracy": 0.5}, 2, None, False)),
        ({"early_stop": "none"}, EARLY, (EARLY, None, None, False)),
        ({}, EARLY, (EARLY, None, None, False)),
        ({}, ENDED, ({"accuracy": 0.5}, None, "hopeless", True)),
        ({"early_stop": "asha"}, ENDED | EARLY, ({"accuracy": 0.5}, 2, "hopeless", True)),
        (
            {},
            {"ended": 4, "screened": "half", "seconds": 1.5},
            ({"ended": 4, "screened": "half", "seconds": 1.5}, None, None, False),
        ),
    ],
)
def test_flags_among_the_metrics_of_built_in_tasks_become_columns(
    tmp_path: Path, settings: dict[str, object], metrics: dict[str, object], expected: tuple[object, ...]
) -> None:
    path = third_schema(tmp_path, {"task": {"name": "digits", "file": None}} | settings, metrics)
    assert flags_after_upgrade(path, metrics) == expected


@pytest.mark.parametrize(
    "task", [{"name": "mine.py:f", "file": {"path": "mine.py"}}, {"name": "session:f", "file": None}]
)
@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (EARLY, ({"accuracy": 0.5}, 2, None, False)),
        (EARLY | {"accuracy": 0.25}, (EARLY | {"accuracy": 0.25}, None, None, False)),  # not those of the last epoch
        (EARLY | {"stopped": 3}, (EARLY | {"stopped": 3}, None, None, False)),  # nor its number
        (ENDED, (ENDED, None, None, False)),
    ],
)
def test_a_user_s_metrics_with_the_names_of_our_flags_stay_metrics(
    tmp_path: Path, task: dict[str, object], metrics: dict[str, object], expected: tuple[object, ...]
) -> None:
    path = third_schema(tmp_path, {"task": task, "early_stop": "median"}, metrics)
    assert flags_after_upgrade(path, metrics) == expected


def third_schema(folder: Path, settings: dict[str, object], metrics: dict[str, object]) -> Path:
    """A store of 0.1.0 whose trained child has these metrics, and 0.5 for its last epoch, the second."""
    path = Path(shutil.copy(ASSETS / "0003.sqlite", folder / "store.db"))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE searches SET settings = ?", (json.dumps(settings),))
        connection.execute("UPDATE children SET metrics = ? WHERE state = 'trained'", (json.dumps(metrics),))
        connection.execute("UPDATE measurements SET epoch = 2")
        connection.execute("UPDATE trainings SET metrics = ?", (json.dumps(metrics),))
    return path


def flags_after_upgrade(path: Path, metrics: dict[str, object]) -> tuple[object, ...]:
    """The trained child's metrics and flags, after the upgrade, which keeps the digest."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = (
            "SELECT number, tokens, canonical_hash, seed, state, reward, metrics FROM children "
            "WHERE state IN ('trained', 'failed')"
        )
        rows = connection.execute(query)
        hasher = hashlib.sha256()  # as 0.1.0 did
        for number, tokens, *entry, found in rows.fetchall():
            timeless = {name: value for name, value in json.loads(found or "{}").items() if name != "seconds"}
            hasher.update(canonical([number, json.loads(tokens), *entry, timeless]))
        for step in connection.execute("SELECT number, state_hash FROM steps ORDER BY number").fetchall():
            hasher.update(canonical(list(step)))
    with contextlib.closing(Store(str(path), upgrade=True)) as store:
        search = store.search("old")
        assert store.digest(search.id) == hasher.hexdigest()
        (child,) = store.children(search.id, states=[State.TRAINED])
        (training,) = store.trainings(child.id)
        assert training.metrics | ({"ended": training.ending} if training.ending else {}) == metrics
        assert training.ending == child.ending
        return child.metrics, child.stopped_at, child.ending, child.screened


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_first_schema_is_upgraded_on_every_database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    address = str(tmp_path / "store.db") if kind == "sqlite" else request.getfixturevalue("new_database")("first")
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder)
    for script in folder.glob("versions/[0-9]*.py"):
        if not script.name.startswith("0001"):
            script.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", folder)
        patch.setattr(database_module, "REVISION", "0001")
        with contextlib.closing(Store(address, create=True)) as store, store._engine.begin() as connection:
            connection.exec_driver_sql(FIRST_SEARCH)
            connection.exec_driver_sql(FIRST_CHILD)
    with contextlib.closing(Store(address, create=True)) as store:
        with store._engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Row.metadata) == []
        search = store.search("old")
        (child,) = store.children(search.id)
        assert (search.stop_requested, child.phases) == (None, None)
        mine = store.request_child("old", (1,))
        assert store.requests(search.id) == [mine]
        store.keep_training(make_training(child.id), packed(0.5))
        assert [training.seed for training in store.trainings(child.id)] == [2**62]
        store.delete("old")
        assert not any(dump(store).values())


FIRST_SEARCH = """
INSERT INTO searches (id, name, state, space, task, controller, seed, replicas, batch_size, threads, settings,
                      num_trained, refused, epoch, unclean, created)
VALUES (1, 'old', 'paused', 'space', 'task', 'random', 1, 1, 4, 1, '{}', 0, '{}', 0, 0, 1.5)
"""
FIRST_CHILD = """
INSERT INTO children (id, search_id, number, batch, drawn_under, origin, tries, tokens, log_probs, canonical_hash, spec,
                      seed, state, fence, progress, attempts, interruptions)
VALUES (1, 1, 0, 0, 0, 'policy', 1, '[0]', '[0.5]', 'hash', '{}', 1, 'ready', 0, 0, 0, 0)
"""


# A schema to come: the tests add a migration after the newest


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{down}"


def upgrade():
    op.add_column("searches", sa.Column("note", sa.Text(), nullable=True))
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True))
    {then}
"""


@pytest.fixture
def next_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Moves this program's schema to 9999; returns the migrations' folder."""

    def move(then: str = "pass") -> Path:
        folder = tmp_path / "migrations"
        shutil.copytree(migrate.MIGRATIONS, folder)
        (folder / "versions" / "9999_next.py").write_text(NEXT.format(down=REVISION, then=then))
        monkeypatch.setattr(migrate, "MIGRATIONS", folder)
        known = engine_module._known_revisions() | {"9999"}
        monkeypatch.setattr(engine_module, "_known_revisions", lambda: known)
        for module in (migrate, engine_module, database_module):
            monkeypatch.setattr(module, "REVISION", "9999")
        return folder

    return move


def tables_of(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}


def test_an_older_store_is_upgraded_after_a_backup(sqlite_path: Path, next_schema: Callable[[str], Path]) -> None:
    with contextlib.closing(Store(str(sqlite_path))) as store:
        make_search(store)
        before = dump(store)
    next_schema("pass")
    with contextlib.closing(Store(str(sqlite_path), create=True)) as store:
        assert store.search("tiny").name == "tiny"
    assert "notes" in tables_of(sqlite_path)
    copy = sqlite_path.with_name(f"store.db.{REVISION}.bak")
    assert "notes" not in tables_of(copy)
    assert not list(sqlite_path.parent.glob("*.partial"))
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM searches").fetchone() == (len(before["searches"]),)


@pytest.mark.parametrize("options", [{}, {"readonly": True}], ids=str)
def test_reading_an_older_store_does_not_upgrade_it(
    sqlite_path: Path, next_schema: Callable[[str], Path], options: dict[str, bool]
) -> None:
    next_schema("pass")
    before = sqlite_path.read_bytes()
    with pytest.raises(StoreError) as caught:
        Store(str(sqlite_path), **options)
    assert str(caught.value) == (
        f"sqlite:///{sqlite_path} has schema {REVISION} and this program needs 9999; any `automl search` or "
        f"`automl resume` with --store {sqlite_path} upgrades it (a backup is made first)."
    )
    assert sqlite_path.read_bytes() == before
    assert not list(sqlite_path.parent.glob("*.bak*"))


def test_an_older_store_is_not_upgraded_without_its_backup(
    sqlite_path: Path, next_schema: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    next_schema("pass")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"The backup .* cannot be written .*; the store was not upgraded\."):
        Store(str(sqlite_path), create=True)
    assert "notes" not in tables_of(sqlite_path)
    assert not list(sqlite_path.parent.glob("*.bak*"))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_migration_that_fails_changes_nothing(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    next_schema: Callable[[str], Path],
    kind: str,
) -> None:
    address = str(tmp_path / "store.db") if kind == "sqlite" else request.getfixturevalue("new_database")("failing")
    with contextlib.closing(Store(address, create=True)) as store:
        make_search(store)
        before = dump(store)
    next_schema("raise RuntimeError('half done')")
    with pytest.raises(RuntimeError, match="half done"):
        Store(address, create=True)
    monkeypatch.undo()
    with contextlib.closing(Store(address)) as store:
        assert dump(store) == before
        store.check()


KILLED = """
import sys
from pathlib import Path
from automl.db import database, engine, migrate
from automl.db.store import Store
folder, path = sys.argv[1:]
known = engine._known_revisions() | {"9999"}
migrate.MIGRATIONS = Path(folder)
migrate.REVISION = engine.REVISION = database.REVISION = "9999"
engine._known_revisions = lambda: known
Store(path, create=True)
"""


def killed(folder: Path, path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def test_a_kill_in_an_upgrade_changes_nothing(
    sqlite_path: Path, next_schema: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(Store(str(sqlite_path))) as store:
        make_search(store)
        before = dump(store)
    folder = next_schema(KILL)
    monkeypatch.undo()
    killed(folder, sqlite_path)
    with contextlib.closing(Store(str(sqlite_path), create=True)) as store:
        assert dump(store) == before
        store.check()


def test_a_kill_in_the_making_leaves_no_half_store(
    tmp_path: Path, next_schema: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.db"
    folder = next_schema(KILL)
    monkeypatch.undo()
    killed(folder, path)
    assert files_under(tmp_path)  # the file is there, and empty of tables
    with pytest.raises(StoreError):
        Store(str(path))
    with contextlib.closing(Store(str(path), create=True)) as store:
        make_search(store)
        store.check()
