"""Databases for the store's tests: a SQLite file, and a private PostgreSQL server where one is installed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import new_database, postgres_server
from sqlalchemy import text
from store_helpers import Clock

from automl.db.schema import Row
from automl.db.store import Store

__all__ = ["new_database", "postgres_server"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
