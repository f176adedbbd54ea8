"""Databases for the store's tests: a SQLite file, and a private PostgreSQL server where one is installed."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from store_helpers import Clock

from automl.db.schema import Row
from automl.db.store import Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of an empty server's first database, on a Unix socket in a temporary folder."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = shutil.which("initdb") or max(glob.glob("/usr/lib/postgresql/*/bin/initdb"), default=None)
    if found is None:
        pytest.skip("no PostgreSQL server (initdb) is installed")
    programs = Path(found).parent
    unprivileged: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        names = [user.pw_name for user in pwd.getpwall()]
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        unprivileged = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="automl-pg-"))
    if unprivileged:
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(data), *arguments]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, **unprivileged
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout} {done.stderr}")

    try:
        run("initdb", "--no-sync", "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C")
        options = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{folder}' -c deadlock_timeout=100ms"
        # With its output in a file, the server does not hold our pipe open.
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgres_server: str) -> Callable[[str], str]:
    """Makes an empty database on the server; returns its address."""

    def make(name: str) -> str:
        engine = create_engine(
            postgres_server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine.dispose()
        return postgres_server.replace("/postgres?", f"/{name}?")

    return make


@pytest.fixture(scope="session")
def postgres_store(new_database: Callable[[str], str]) -> str:
    address = new_database("contract")
    Store(address, create=True).close()
    return address


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: copying it is quicker than migrating."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    Store(str(path), create=True).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "store.db")
        return str(tmp_path / "store.db")
    address = request.getfixturevalue("postgres_store")
    with contextlib.closing(Store(address)) as store, store._engine.begin() as connection:
        tables = ", ".join(table.name for table in Row.metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
    return address


@pytest.fixture
def store(address: str, clock: Clock, tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(address, clock=clock, artefacts_dir=tmp_path / "artefacts")) as opened:
        yield opened


@pytest.fixture
def sqlite_path(sqlite_template: Path, tmp_path: Path) -> Path:
    """A SQLite file with an empty store."""
    return Path(shutil.copy(sqlite_template, tmp_path / "store.db"))
