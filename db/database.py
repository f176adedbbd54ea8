"""Opens and checks the database of a store, and runs transactions on it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exc, text

from automl.db.engine import (
    BUSY_SECONDS,
    WRITE,
    address_text,
    check_place,
    check_store,
    first_line,
    open_engine,
    parse_address,
    shown,
)
from automl.db.read_only import ReadOnlyFile, why_not_writable
from automl.db.records import StoreError
from automl.db.schema import REVISION

COPY_IT = "To go on with its searches, copy it to a folder of yours and name the copy with --store."
_NOW = {
    "sqlite": text("SELECT (julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": text("SELECT extract(epoch FROM clock_timestamp())::double precision"),
}


class Database:
    """The connection of a store to its database.

    Args:
        address: a database URL or the path of a SQLite file.
        create: make or upgrade the schema; otherwise the store must exist.
        upgrade: upgrade the schema of an existing store.
        deferred: with `create`: write nothing before `make` is called; until then only `has_search` may be called.
        readonly: only read; a SQLite file is then not written at all.
        clock: returns seconds since 1970, instead of the database's own clock.
        artefacts_dir: the folder for weights of more than 64 MB. The default is `NAME.artefacts` beside a SQLite file,
            and otherwise a folder for each database in the user's folder for data.

    Raises:
        StoreError: there is no store at the address, or it is damaged, not of automl, or newer than this program.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        create: bool = False,
        upgrade: bool = False,
        deferred: bool = False,
        readonly: bool = False,
        clock: Callable[[], float] | None = None,
        artefacts_dir: Path | None = None,
    ) -> None:
        address = self.address = address_text(address)
        self._clock = clock
        self._deferred = deferred
        url = parse_address(address)
        self._shown = shown(url)
        self.file = Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None
        if self.file is not None:
            check_place(Path(url.database or ""), create=create)
        # For commands in messages: quoted, and without a password.
        self.option = f"--store {shlex.quote(address if '://' not in address else shown(url))}"
        self._reader = None
        if self.file is not None:  # SQLite's other files are beside the target of a link
            if readonly:
                self._reader = ReadOnlyFile(self.file.resolve(), busy_seconds=BUSY_SECONDS)
            else:
                self._refuse_unwritable(self.file.resolve(), create=create)
        self._engine = open_engine(url, reader=self._reader)
        self._artefacts_dir = artefacts_dir or self._default_artefacts_dir()
        if not self._exists and not create:
            raise StoreError(f"There is no store at {self}. Start one with: automl search NAME {self.option}")
        try:
            if deferred:
                self._check_place()
            elif create or upgrade:
                self._create_or_upgrade()
            else:
                self._check(thorough=False)
        except exc.DBAPIError as error:
            self.close()
            raise StoreError(f"The store {self} cannot be opened: {first_line(error)}") from error
        except BaseException:
            self.close()
            raise

    def make(self) -> None:
        """Makes or upgrades the schema of a store that was opened `deferred`. Raises StoreError."""
        if not self._deferred:
            return
        try:
            self._create_or_upgrade()
            self._deferred = False
        except exc.DBAPIError as error:
            raise StoreError(f"The store {self} cannot be opened: {first_line(error)}") from error

    def _create_or_upgrade(self) -> None:
        from automl.db.migrate import create_or_upgrade  # alembic takes a third of a second to import

        create_or_upgrade(self._engine)

    def _check_place(self) -> None:
        """Raises StoreError if no store can be made. Makes none."""
        if self.file is None or self._exists:
            check_store(self._engine, thorough=False)
        elif not self.file.parent.is_dir():
            folder = Path(self._engine.url.database or "").parent
            raise StoreError(f"The folder {folder} for the store {self.file.name} does not exist; create it first.")
        elif not os.access(self.file.parent, os.W_OK | os.X_OK):
            raise StoreError(
                f"The store {self.file} cannot be created: its folder cannot be written. Choose another --store."
            )

    @property
    def _exists(self) -> bool:
        """Whether the database exists; one on a server is assumed to."""
        return self.file is None or (self.file.exists() and self.file.stat().st_size > 0)

    def _check(self, *, thorough: bool) -> None:
        revision = check_store(self._engine, thorough=thorough)
        if revision is None:
            raise StoreError(f"{self} holds no automl store yet. Start one with: automl search NAME {self.option}")
        if revision != REVISION and self._reader is not None and (why := why_not_writable(self._reader.path)):
            raise StoreError(
                f"{self} has schema {revision} and this program needs {REVISION}; it cannot be upgraded, since {why}. "
                f"{COPY_IT}"
            )
        if revision != REVISION:
            raise StoreError(
                f"{self} has schema {revision} and this program needs {REVISION}; "
                f"any `automl search` or `automl resume` with {self.option} upgrades it (a backup is made first)."
            )

    def _refuse_unwritable(self, file: Path, *, create: bool) -> None:
        """Raises StoreError for a store that cannot be written. SQLite's message does not give the reason."""
        if not file.parent.is_dir() or not (file.exists() or create):
            return
        why = why_not_writable(file)
        if why is not None and file.exists():
            raise StoreError(f"The store {self} cannot be written: {why}. It can be read. {COPY_IT}")
        if why is not None:
            raise StoreError(f"The store {self} cannot be made: {why}. Choose another --store.")

    @property
    def reading_note(self) -> str | None:
        """A notice for the user if the store is read without locks, else None."""
        if self._reader is None or not self._reader.is_snapshot:
            return None
        return (
            f"{self} is read without locks, since {why_not_writable(self._reader.path)}: what another process is "
            "writing may show late."
        )

    def check(self) -> None:
        """Reads the whole store for damage. Raises StoreError."""
        self._check(thorough=True)

    def __str__(self) -> str:
        return self._shown

    @property
    def folder_name(self) -> str:
        """The store's address as the name of a folder."""
        return re.sub(r"[^\w.-]+", "-", str(self))

    def close(self) -> None:
        self._engine.dispose()
        if self._reader is not None:
            self._reader.close()

    def now(self) -> float:
        """Seconds since 1970 by the database's clock. All processes judge leases by this clock."""
        with self._read() as connection:
            return self._now(connection)

    def _default_artefacts_dir(self) -> Path:
        if self.file is not None:
            return self.file.with_name(f"{self.file.name}.artefacts")
        import platformdirs

        return Path(platformdirs.user_data_dir("automl")) / self.folder_name

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._transaction(**WRITE) as connection:
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._transaction() as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        try:
            if self._reader is not None and self._reader.has_changed():
                self._engine.dispose()  # its connections read the old content
            with self._engine.connect() as connection:
                connection.execution_options(**options)
                with connection.begin():
                    yield connection
            if self._reader is not None and self._reader.has_changed():
                raise StoreError(f"The store {self} was written while it was read; try again.")
        except exc.OperationalError as error:
            raise StoreError(f"The store {self} did not answer: {first_line(error)}") from error
        except exc.DBAPIError as error:
            raise StoreError(f"The store {self} refused: {first_line(error)}") from error
        except exc.StatementError as error:  # a value that is not JSON; SQLAlchemy's message would show all values
            raise ValueError(f"This cannot be stored: {error.orig}.") from error

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        return float(connection.scalar(_NOW[self._engine.dialect.name]))
