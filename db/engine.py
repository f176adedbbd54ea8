"""Opens a database: its address, its settings, and whether it is one of ours, before anything is written."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, text
from sqlalchemy.engine import URL, make_url

from db.records import StoreError
from db.schema import APPLICATION_ID, REVISION

BUSY_SECONDS = 30.0
WRITE = {"automl_write": True}  # an execution option: this connection's transactions take the write lock at once


def parse_address(address: str) -> URL:
    """A database URL, or the path of a SQLite file.

    Raises:
        StoreError: the address is no URL that SQLAlchemy can read, or names a database we do not support.
    """
    if "://" not in address:
        return URL.create("sqlite", database=str(Path(address).expanduser()))
    try:
        url = make_url(address)
    except exc.ArgumentError:
        raise StoreError("The store's address is not a database URL; write sqlite:///FILE or a file's path.") from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"The store cannot be on {backend}; use sqlite:///FILE or postgresql://HOST/DATABASE.")


def shown(url: URL) -> str:
    """The address without its secrets, wherever in the URL they stand."""
    return url.set(password=None, query={}).render_as_string(hide_password=True)


def open_engine(url: URL, *, readonly: bool = False) -> Engine:
    """An engine whose SQLite connections wait for locks, check foreign keys and survive a power cut."""
    dumps = functools.partial(json.dumps, allow_nan=False)
    if url.get_backend_name() != "sqlite":
        arguments = {"connect_timeout": 5, "keepalives_idle": 3, "keepalives_interval": 1, "keepalives_count": 3}
        return create_engine(url, json_serializer=dumps, connect_args=arguments, pool_pre_ping=True)
    options: dict[str, Any] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    if readonly and url.database and url.database != ":memory:":
        path = Path(url.database).absolute().as_uri()
        url = URL.create("sqlite", database=path, query={"mode": "ro", "uri": "true"})
    engine = create_engine(url, json_serializer=dumps, connect_args=options)
    event.listen(engine, "connect", functools.partial(_prepare_sqlite, readonly=readonly))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any, *, readonly: bool) -> None:
    connection.isolation_level = None  # the driver must not begin transactions: `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA trusted_schema=OFF")
    cursor.execute("PRAGMA synchronous=FULL")
    if readonly:
        cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later can fail at once with "database is locked", without waiting; one
    # that takes the write lock when it begins waits its turn.
    write = connection.get_execution_options().get("automl_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def check_store(engine: Engine, *, thorough: bool) -> str | None:
    """The schema's revision, or None for a database with nothing in it.

    Args:
        thorough: also read every page of a SQLite file for damage, as before writing to it.

    Raises:
        StoreError: the database is damaged, is not ours, or is newer than this program. Nothing was written.
    """
    name = shown(engine.url)
    try:
        with engine.connect() as connection:
            tables = set(inspect(connection).get_table_names())
            sqlite = engine.dialect.name == "sqlite"
            if not tables:
                return None
            if sqlite:
                _check_sqlite(connection, name, thorough=thorough)
            if not {"searches", "children", "alembic_version"} <= tables:
                raise StoreError(f"{name} is not an automl store: it has other tables. Choose another --store.")
            revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    except exc.DatabaseError as error:
        raise StoreError(
            f"{name} cannot be read as a database ({_first_line(error)}). Restore it from a backup, or choose another "
            "--store."
        ) from error
    known = _known_revisions()
    if revision not in known:
        raise StoreError(
            f"{name} was written by a newer automl (schema {revision}; this program knows up to {REVISION}). "
            "Upgrade automl, or choose another --store."
        )
    return str(revision)


def _check_sqlite(connection: Connection, name: str, *, thorough: bool) -> None:
    if connection.exec_driver_sql("PRAGMA application_id").scalar() != APPLICATION_ID:
        raise StoreError(f"{name} is not an automl store: its file carries another mark. Choose another --store.")
    foreign = connection.exec_driver_sql("SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')").all()
    if foreign:
        kind, what = foreign[0]
        raise StoreError(
            f"{name} holds a {kind} {what!r} that automl never makes; it is not opened. Use a clean store."
        )
    if thorough:
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if verdict != "ok":
            raise StoreError(f"{name} is damaged ({verdict}). Restore it from a backup, or choose another --store.")


def _known_revisions() -> set[str]:
    """Revisions this program can read: their files' names begin with them. Alembic is slow to import."""
    folder = Path(__file__).parent / "migrations" / "versions"
    return {path.name.partition("_")[0] for path in folder.glob("[0-9]*.py")}


def _first_line(error: exc.DatabaseError) -> str:
    return str(error.orig).splitlines()[0] if error.orig else type(error).__name__
