"""What a child has been trained to, on disk, so that one that is killed goes on from its last epoch."""

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
INTERVAL = 20.0  # seconds of training that are worth a checkpoint


class Checkpoint(Protocol):
    """One child's latest checkpoint. It is there whole or not at all, whatever dies while it is written."""

    def save(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Writes arrays and JSON values. A disk that is full costs the checkpoint, not the child."""

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest checkpoint of this child that is whole, or None."""

    def remove(self) -> None:
        """Deletes it. It is no error where there is none."""


def identity_of(tokens: Sequence[int], seed: int, how: Any) -> str:
    """What tells one child's checkpoint from another's; `how` says how the child is trained (a JSON value)."""
    return canonical_json([list(tokens), seed, how])


@dataclasses.dataclass(frozen=True)
class FileCheckpoint:
    """A checkpoint in a file, and the one before it.

    A file is there whole or not at all: it is written beside, flushed to the disk and renamed. The one before is kept
    until the next but one, for the case that the newest was damaged afterwards.

    Attributes:
        path: of the newest.
        identity: of the child and of how it is trained; the file of another is set aside.
        own: how many of the last folders of the path are ours, and never links (see `db.own_files`).
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
                    logger.warning("The checkpoint %s is another child's; this one begins anew.", path)
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
