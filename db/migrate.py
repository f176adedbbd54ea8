"""Creates a store, or upgrades an older one to this program's schema. Only this module imports alembic."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text

from automl.db.engine import BUSY_SECONDS, WRITE, check_store
from automl.db.records import StoreError
from automl.db.schema import APPLICATION_ID, REVISION

MIGRATIONS = Path(__file__).parent / "migrations"
PAUSE_SECONDS = 0.02  # between two attempts to switch a new file to WAL mode


def create_or_upgrade(engine: Engine) -> None:
    """Creates this program's schema, or upgrades an older one.

    This is one transaction under the write lock, so a kill leaves the database as it was. An older SQLite store is
    copied to `NAME.REVISION.bak` first.

    Raises:
        StoreError: the folder does not exist, the backup cannot be written, or as `check_store`.
    """
    path = Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None
    if path is not None and not path.parent.is_dir():
        raise StoreError(f"The folder {path.parent} for the store {path.name} does not exist; create it first.")
    if path is not None and not path.exists():
        import alembic.command  # noqa: F401 - slow; Ctrl-C during it must leave no empty file
    revision = check_store(engine, thorough=True)
    if revision == REVISION:
        return
    if path is not None and revision is None:
        create_file(path)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.connect().execution_options(**WRITE) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION_ID})")
        elif revision is not None and path is not None:
            # Read again: another process may have upgraded the store before this one got the write lock.
            present = connection.scalar(text("SELECT version_num FROM alembic_version"))
            if present != REVISION:
                _back_up(path, str(present))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def create_file(path: Path, *, pause: Callable[[float], object] = time.sleep) -> None:
    """Makes an empty file in WAL mode, with our application id. Neither can be set inside a transaction.

    The switch to WAL mode turns a read lock into an exclusive one. SQLite does not wait for that: it fails at once if
    another process that creates the same store holds a lock. So this function waits and tries again.

    Args:
        pause: waits for a number of seconds.

    Raises:
        StoreError: the file cannot be created, or was locked for `BUSY_SECONDS`.
    """
    waited = 0.0
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            while not _switch_to_wal(connection, last=waited >= BUSY_SECONDS):
                pause(PAUSE_SECONDS)
                waited += PAUSE_SECONDS
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    except sqlite3.OperationalError as error:
        raise StoreError(f"The store {path} cannot be created: {error}.") from error


def _switch_to_wal(connection: sqlite3.Connection, *, last: bool) -> bool:
    """Whether the file is in WAL mode now. Raises OperationalError, on the last attempt also for a locked file."""
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte: extended codes add to it
            raise
        return False
    return True


def _back_up(path: Path, revision: str) -> None:
    copy = path.with_name(f"{path.name}.{revision}.bak")
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as source:
            source.execute("VACUUM INTO ?", (str(partial),))
        partial.replace(copy)
    except (sqlite3.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise StoreError(f"The backup {copy} cannot be written ({error}); the store was not upgraded.") from error
