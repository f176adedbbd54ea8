"""Checkpoints on disk: a child whose worker is killed resumes from its last checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from automl.db import blobs, own_files
from automl.db.records import StoreError
from automl.search_spaces.spec import canonical_json

logger = logging.getLogger(__name__)
INTERVAL = 20.0  # seconds of training between two checkpoints


class Checkpoint(Protocol):
    """One child's latest checkpoint. It is never partial, even if a process dies while it writes."""

    def save(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Writes arrays and JSON values. If they cannot be written, it logs a warning and the training continues."""

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest undamaged checkpoint of this child, or None."""

    def remove(self) -> None:
        """Deletes the checkpoint, if there is one."""


def identity_of(tokens: Sequence[int], seed: int, how: Any) -> str:
    """The identity of a child's checkpoint. `how` is a JSON value that describes how the child is trained."""
    return canonical_json([list(tokens), seed, how])


@dataclasses.dataclass(frozen=True)
class FileCheckpoint:
    """The newest checkpoint of a child in a file, and the previous one in a second file.

    A file is never partial: it is written under another name, flushed to the disk and renamed. `load` reads the
    previous checkpoint if the newest file is damaged.

    Attributes:
        path: of the newest checkpoint.
        identity: see `identity_of`; a file with another identity is not loaded.
        own: the number of last folders of the path that are ours and must not be links (see `db.own_files`).
    """

    path: Path
    identity: str
    own: int = 0

    @property
    def previous(self) -> Path:
        return self.path.with_suffix(".previous")

    def save(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        blob = blobs.pack(arrays)
        header = {"identity": self.identity, "sha256": blobs.sha256(blob), "values": dict(values)}
        content = json.dumps(header, allow_nan=False).encode() + b"\n" + blob
        try:
            own_files.write(self.path, content, own=self.own, previous=self.previous.name)
        except OSError as error:
            logger.warning("The checkpoint %s cannot be written: %s.", self.path, error.strerror)

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        for path in (self.path, self.previous):
            try:
                header_line, _, blob = own_files.read(path, own=self.own).partition(b"\n")
            except OSError:
                continue
            try:
                header = json.loads(header_line)
                if header["identity"] != self.identity:
                    logger.warning("The checkpoint %s is of another training and was not used.", path)
                    continue
                return blobs.unpack(blob, header["sha256"]), header["values"]
            except (ValueError, KeyError, TypeError, StoreError):
                logger.warning("The checkpoint %s is damaged and was not used.", path)
        return None

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            for name in own_files.names(self.path.parent, own=self.own):
                if name in (self.path.name, self.previous.name) or fnmatch(name, f"{self.path.stem}.*.partial"):
                    own_files.remove(self.path.with_name(name), own=self.own)
