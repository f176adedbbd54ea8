"""Reads a SQLite file in a folder that cannot be written, where SQLite cannot create its lock files.

In WAL mode even a reader needs `NAME-wal` and `NAME-shm` beside the file. If they cannot be created, the file is opened
as immutable, and each transaction checks before and after that the file has not changed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sqlite3
import tempfile
from pathlib import Path

from automl.db.records import StoreError

COPY_ATTEMPTS = 3  # for a store that is being written
_Mark = tuple[tuple[int, int, int] | None, ...]


def why_not_writable(path: Path) -> str | None:
    """Why a SQLite file or its folder cannot be written; None if both can."""
    folder = path.parent
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is on a file system that is mounted read-only"
    if path.exists() and not os.access(path, os.W_OK):
        return f"you may not write the file, which belongs to {_owner(path)}"
    if not os.access(folder, os.W_OK):
        return f"you may not write in the folder {folder}, which belongs to {_owner(folder)}"
    return None


def _owner(path: Path) -> str:
    number = path.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"the user {number}"


class ReadOnlyFile:
    """Read-only connections to a SQLite file.

    Args:
        busy_seconds: how long a connection waits for another program's lock.
    """

    def __init__(self, path: Path, *, busy_seconds: float) -> None:
        self.path = path
        self._busy_seconds = busy_seconds
        self._mark: _Mark | None = None  # of a file that is read without locks; None: SQLite's locks work
        self._copies: list[tempfile.TemporaryDirectory[str]] = []

    @property
    def is_snapshot(self) -> bool:
        """Whether the file is read without SQLite's locks."""
        return self._mark is not None

    def connect(self) -> sqlite3.Connection:
        """Opens a read-only connection. Raises sqlite3.OperationalError, StoreError."""
        self._mark = None
        connection = self._open(self.path, "mode=ro")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # opens the lock files too
            return connection
        except sqlite3.OperationalError:
            connection.close()
            if why_not_writable(self.path) is None or not os.access(self.path, os.R_OK):
                raise
        except sqlite3.DatabaseError:
            return connection  # reading its content reports the error
        return self._without_locks()

    def has_changed(self) -> bool:
        """Whether a file that is read without locks has changed since it was opened."""
        return self._mark is not None and self._mark != self._marks()

    def close(self) -> None:
        for folder in self._copies:
            folder.cleanup()
        self._copies.clear()

    def _without_locks(self) -> sqlite3.Connection:
        mark = self._marks()
        if mark[1] is None or mark[1][1] == 0:
            self._mark = mark
            return self._open(self.path, "mode=ro&immutable=1")
        # The newest transactions are in the -wal file, which SQLite can read only in a writable folder.
        for _ in range(COPY_ATTEMPTS):
            mark, copy = self._marks(), self._copy()
            if mark == self._marks():
                self._mark = mark
                return self._open(copy, "mode=ro")
        raise StoreError(f"The store {self.path} is being written; try again in a moment.")

    def _copy(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="automl-")
        self._copies.append(folder)
        copy = Path(folder.name) / "store.db"
        shutil.copyfile(self.path, copy)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{self.path}-wal", f"{copy}-wal")
        return copy

    def _marks(self) -> _Mark:
        """Inode, size and modification time (nanoseconds) of the file and of its -wal file."""
        marks: list[tuple[int, int, int] | None] = []
        for path in (str(self.path), f"{self.path}-wal"):
            try:
                status = os.stat(path)
                marks.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                marks.append(None)
        return tuple(marks)

    def _open(self, path: Path, how: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=self._busy_seconds, check_same_thread=False)
