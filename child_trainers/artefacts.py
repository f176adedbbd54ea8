"""Storage of the logs and checkpoints of a search: a contract, and its first implementation, a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from automl.db import own_files
from automl.db.records import StoreError

if TYPE_CHECKING:
    from automl.child_trainers.training.checkpoints import Checkpoint, FileCheckpoint

LOG_TAIL = 2**20  # bytes
LOG_FOLDERS = 2  # folders at the end of a log's path that automl creates: STORE.logs/NAME
CHECKPOINT_FOLDERS = 3  # the same for a checkpoint: STORE.logs/NAME/checkpoints


class WorkerLog(Protocol):
    """The output of the workers of one slot, one worker after the other."""

    def append(self) -> BinaryIO:
        """Opens the log for a process to write to. Raises StoreError if it cannot be written."""

    def end(self) -> int:
        """The length of the log in bytes; 0 if there is no log."""

    def read(self, start: int) -> str:
        """The text after an offset in bytes, at most the last megabyte; empty if the log was removed."""

    def __str__(self) -> str:
        """Where the user finds the log."""


class Artefacts(Protocol):
    """Logs and checkpoints of one search.

    A pool opens logs. Workers read back the output of their children and write checkpoints. The coordinator deletes the
    checkpoints of children that will not be resumed. Workers receive `to_json` and call `artefacts_from_json`.
    """

    def worker_log(self, slot: int) -> WorkerLog:
        """The log of a slot's workers."""

    def checkpoint(self, number: int, identity: str, *, training: str | None = None) -> Checkpoint:
        """The checkpoint of a child, or of a training of the child after the search.

        Args:
            identity: identifies the child and how it is trained (`checkpoints.identity_of`).
            training: a name of the training after the search, unique for the child; None for the search itself.
        """

    def with_checkpoints(self) -> set[int]:
        """The numbers of the children that have a checkpoint of the search itself."""

    def drop_checkpoints(self, numbers: Iterable[int]) -> None:
        """Deletes the checkpoints of these children. A checkpoint that cannot be deleted stays."""

    def delete(self) -> None:
        """Deletes all logs and checkpoints of the search."""

    def to_json(self) -> dict[str, Any]: ...

    def __str__(self) -> str:
        """Where the user finds the logs."""


@dataclasses.dataclass(frozen=True)
class LogFile:
    """A worker's log as a file. automl created the last `own` folders of its path; they are never links
    (`db.own_files`)."""

    path: Path
    own: int = LOG_FOLDERS

    def append(self) -> BinaryIO:
        try:
            descriptor = own_files.open_file(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=self.own)
        except OSError as error:
            raise StoreError(f"The log {self.path} cannot be written: {error.strerror}.") from error
        return open(descriptor, "ab")

    def end(self) -> int:
        try:
            descriptor = own_files.open_file(self.path, os.O_RDONLY, own=self.own)
        except OSError:
            return 0
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def read(self, start: int) -> str:
        try:
            with open(own_files.open_file(self.path, os.O_RDONLY, own=self.own), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(start, size - LOG_TAIL))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def __str__(self) -> str:
        return str(self.path)


@dataclasses.dataclass(frozen=True)
class FolderArtefacts:
    """Logs in a folder (`STORE.logs/NAME` for a SQLite store), checkpoints in its subfolder `checkpoints`."""

    folder: Path

    def worker_log(self, slot: int) -> LogFile:
        return LogFile(self.folder / f"worker-{slot}.log")

    def checkpoint(self, number: int, identity: str, *, training: str | None = None) -> FileCheckpoint:
        name = f"child-{number}" if training is None else f"child-{number}-{training}"
        # Imported here: it imports NumPy, which commands that only read the store do not need.
        from automl.child_trainers.training.checkpoints import FileCheckpoint

        return FileCheckpoint(self._checkpoints / f"{name}.checkpoint", identity, CHECKPOINT_FOLDERS)

    def with_checkpoints(self) -> set[int]:
        return {number for number, _ in self._checkpoint_files()}

    def drop_checkpoints(self, numbers: Iterable[int]) -> None:
        dropped = set(numbers)
        for number, file in self._checkpoint_files():
            if number in dropped:
                with contextlib.suppress(OSError):
                    own_files.remove(self._checkpoints / file, own=CHECKPOINT_FOLDERS)

    def delete(self) -> None:
        for folder, own, pattern in (
            (self.folder, LOG_FOLDERS, "worker-*.log"),
            (self._checkpoints, CHECKPOINT_FOLDERS, "child-*"),
        ):
            for file in fnmatch.filter(own_files.names(folder, own=own), pattern):
                with contextlib.suppress(OSError):
                    own_files.remove(folder / file, own=own)
        own_files.remove_if_empty(self._checkpoints, own=CHECKPOINT_FOLDERS)
        own_files.remove_if_empty(self.folder, own=LOG_FOLDERS)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "folder", "folder": str(self.folder)}

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _checkpoint_files(self) -> list[tuple[int, str]]:
        """Child number and name of every checkpoint file, previous and partly written ones included."""
        names = own_files.names(self._checkpoints, own=CHECKPOINT_FOLDERS)
        matches = ((re.match(r"child-(\d+)\.", name, re.ASCII), name) for name in names)
        return [(int(match[1]), name) for match, name in matches if match]


def artefacts_from_json(value: Mapping[str, Any]) -> Artefacts:
    """The inverse of `Artefacts.to_json`. Raises ValueError for a kind that this version does not know."""
    if value["kind"] != "folder":
        raise ValueError(f"Logs and checkpoints are stored in a {value['kind']!r}, which this version does not know.")
    return FolderArtefacts(Path(value["folder"]))
