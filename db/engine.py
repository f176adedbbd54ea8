"""Opens a database: parses its address, configures its connections, and checks that it is a store of automl."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, text
from sqlalchemy.engine import URL, make_url

from automl.db.read_only import ReadOnlyFile
from automl.db.records import StoreError
from automl.db.schema import APPLICATION_ID, REVISION

NO_URL = "The store's address is not a database URL; write sqlite:///FILE or a file's path."
NO_FILE = "A SQLite store must be a plain file; write sqlite:///FILE or a file's path."
BUSY_SECONDS = 90.0  # another program may hold the file for a minute
WRITE = {"automl_write": True}  # an execution option: this connection's transactions take the write lock at once

# SQLite's locks, and the memory that readers and writers share in WAL mode, do not hold between machines.
NETWORK_FILESYSTEMS = frozenset({"afs", "ceph", "cifs", "fuse.sshfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"})


def address_text(given: str | os.PathLike[str]) -> str:
    """A store's address as text.

    Raises:
        StoreError: the address is empty, or neither text nor a path.
    """
    if not isinstance(given, str | os.PathLike):
        raise StoreError(f"A store's address is a file's path or a database URL, not {given!r}.")
    text = os.fsdecode(given)
    if not text.strip() or "\0" in text:
        raise StoreError(f"The store's address {text!r} is empty or no path; write sqlite:///FILE or a file's path.")
    return text


def check_place(path: Path, *, create: bool) -> None:
    """Raises StoreError for a path that cannot be a SQLite file: a folder, a device, a broken link."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink() and not (create and path.resolve().parent.is_dir()):
            raise StoreError(
                f"{path} is a link to {path.readlink()}, which does not exist; fix the link, or name another file "
                "with --store."
            ) from None
        return
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be reached: {error.strerror}. Name another file with --store."
        ) from None
    if stat.S_ISDIR(mode):
        raise StoreError(f"{path} is a folder; name a file in it, for example {path / 'automl.db'}.")
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is not a plain file, which a store must be; name another with --store.")


def _of_user(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~NAME of an unknown user
        raise StoreError(f"There is no home folder for {path}; name the store by its absolute path.") from None


def parse_address(address: str) -> URL:
    """A database URL, or the path of a SQLite file.

    Raises:
        StoreError: SQLAlchemy cannot parse the URL, or automl does not support the database.
    """
    if "://" not in address:
        if address.startswith(":memory:"):
            raise StoreError(NO_FILE)
        if address.partition(":")[0] in ("file", "sqlite", "postgresql"):
            raise StoreError(NO_URL)
        return URL.create("sqlite", database=str(_of_user(address)))
    try:
        url = make_url(address)
    except (exc.ArgumentError, ValueError):  # ValueError: the port is not a number; it may be part of a password
        raise StoreError(NO_URL) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database.startswith((":memory:", "file:")):
            raise StoreError(NO_FILE)
        return URL.create("sqlite", database=url.database)
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"The store cannot be on {backend}; use sqlite:///FILE or postgresql://HOST/DATABASE.")


def shown(url: URL) -> str:
    """The address without its secrets: password and query are left out."""
    clean = URL.create(url.get_backend_name(), url.username, None, url.host, url.port, url.database)
    return clean.render_as_string()


def parse_json(text: Any) -> Any:
    """Parses a JSON value of a store. Raises StoreError if it is not JSON, or contains a number that is not finite."""
    if isinstance(text, int | float) and math.isfinite(text):
        return text  # SQLite stores a text that is a number as a number
    try:
        return _DECODER.decode(text if isinstance(text, str) else bytes(text).decode())
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(
            f"The store holds a value that is not JSON ({str(error).rstrip('.')}); it is damaged, or another program "
            "has changed it. Restore it from a backup."
        ) from None


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not finite")


_DECODER = json.JSONDecoder(parse_constant=_not_finite, parse_float=_finite)


def open_engine(url: URL, *, reader: ReadOnlyFile | None = None) -> Engine:
    """An engine whose SQLite connections wait for locks, check foreign keys and survive a power cut.

    Args:
        reader: opens the connections to a SQLite file that is only read; None to also write.
    """
    codec: dict[str, Any] = {
        "json_serializer": functools.partial(json.dumps, allow_nan=False),
        "json_deserializer": parse_json,
    }
    if url.get_backend_name() != "sqlite":
        arguments = {
            "connect_timeout": 5,
            "keepalives_idle": 3,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "tcp_user_timeout": 5000,
        }
        try:
            return create_engine(url, **codec, connect_args=arguments, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError(
                f"PostgreSQL needs the package {error.name}: pip install 'automl-reinforce[postgres]'."
            ) from error
    path = Path(url.database or "").absolute()
    refuse_network(path)
    address = f"{path.as_uri()}?mode=rwc"
    connect: Callable[[], sqlite3.Connection] = functools.partial(
        sqlite3.connect, address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False
    )
    engine = create_engine(url, **codec, creator=connect if reader is None else reader.connect)
    event.listen(engine, "connect", functools.partial(_prepare_sqlite, readonly=reader is not None))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def refuse_network(path: Path, mounts: str | None = None) -> None:
    """Raises StoreError if a file is on a network filesystem. `mounts` is the text of /proc/mounts."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(errors="surrogateescape")
        except OSError:
            return
    kinds = {}
    for line in mounts.splitlines():
        _device, folder, kind, *_rest = line.split(" ")
        # Spaces and similar characters are octal numbers. Of two mounts on one folder, the later one is visible.
        kinds[re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), folder)] = kind
    path = path.resolve()
    kind = next((kinds[str(folder)] for folder in (path, *path.parents) if str(folder) in kinds), "")
    if kind in NETWORK_FILESYSTEMS:
        raise StoreError(
            f"{path} is on a network filesystem ({kind}), where SQLite can lose data; put the store on a local disk, "
            "or use postgresql://HOST/DATABASE."
        )


def _prepare_sqlite(connection: Any, _record: Any, *, readonly: bool) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins transactions, not the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA trusted_schema=OFF")
    cursor.execute("PRAGMA synchronous=FULL")
    if readonly:
        cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later can fail at once with "database is locked". One that takes the
    # write lock when it begins waits for the lock.
    write = connection.get_execution_options().get("automl_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def check_store(engine: Engine, *, thorough: bool) -> str | None:
    """The schema's revision, or None for an empty database. Writes nothing.

    Args:
        thorough: also check every page of a SQLite file for damage, as before writing to it.

    Raises:
        StoreError: the database is damaged, is not a store of automl, or is newer than this program.
    """
    name = shown(engine.url)
    try:
        with engine.connect() as connection:
            tables = set(inspect(connection).get_table_names())
            sqlite = engine.dialect.name == "sqlite"
            if sqlite:
                _check_sqlite(connection, name, thorough=thorough, empty=not tables)
            if not tables:
                return None
            if not {"searches", "children", "alembic_version"} <= tables:
                raise StoreError(f"{name} is not an automl store: it has other tables. Choose another --store.")
            revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    except exc.OperationalError:
        raise  # the database did not answer; its content may be fine
    except exc.DatabaseError as error:
        raise StoreError(
            f"{name} cannot be read as a database ({first_line(error)}). Restore it from a backup, or choose another "
            "--store."
        ) from error
    known = _known_revisions()
    if revision not in known:
        raise StoreError(
            f"{name} was written by a newer automl (schema {revision}; this program knows up to {REVISION}). "
            "Upgrade automl, or choose another --store."
        )
    return str(revision)


def _check_sqlite(connection: Connection, name: str, *, thorough: bool, empty: bool) -> None:
    mark = connection.exec_driver_sql("PRAGMA application_id").scalar()
    if mark != APPLICATION_ID and not (empty and mark == 0):
        raise StoreError(f"{name} is not an automl store: its file has another application id. Choose another --store.")
    foreign = connection.exec_driver_sql("SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')").all()
    if foreign:
        kind, what = foreign[0]
        raise StoreError(
            f"{name} holds a {kind} {what!r} that automl never makes; it is not opened. Use a clean store."
        )
    if thorough:
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if verdict != "ok":
            damage = " ".join(str(verdict).split())
            raise StoreError(f"{name} is damaged ({damage}). Restore it from a backup, or choose another --store.")


def _known_revisions() -> set[str]:
    """The revisions that this program knows, from the names of their files. Alembic is slow to import."""
    folder = Path(__file__).parent / "migrations" / "versions"
    return {path.name.partition("_")[0] for path in folder.glob("[0-9]*.py")}


def first_line(error: exc.DBAPIError) -> str:
    """The first line of the database's message, without the statement and its values."""
    return str(error.orig).splitlines()[0] if error.orig else type(error).__name__
