"""What a child has been trained to, on disk, so that one that is killed goes on from its last epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from db import blobs
from db.records import StoreError
from search_spaces.walk import canonical_json

logger = logging.getLogger(__name__)
INTERVAL = 20.0  # seconds of training that are worth a checkpoint


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One child's checkpoint file, and the one before it.

    A file is there whole or not at all: it is written beside, flushed to the disk and renamed. The one before is kept
    until the next but one, for the case that the newest was damaged afterwards.

    Attributes:
        path: of the newest.
        identity: of the child and of how it is trained; the file of another is set aside.
    """

    path: Path
    identity: str

    @classmethod
    def of(cls, path: Path, tokens: Sequence[int], seed: int, how: Any) -> Checkpoint:
        """That of one child, trained in one way (a JSON value)."""
        return cls(path, canonical_json([list(tokens), seed, how]))

    @property
    def previous(self) -> Path:
        return self.path.with_suffix(".previous")

    def save(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Writes arrays and JSON values. A disk that is full costs the checkpoint, not the child."""
        blob = blobs.pack(arrays)
        header = {"identity": self.identity, "sha256": blobs.sha256(blob), "values": dict(values)}
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(json.dumps(header, allow_nan=False).encode() + b"\n" + blob)
                file.flush()
                os.fsync(file.fileno())
            if self.path.exists():
                self.path.replace(self.previous)
            partial.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            logger.warning("The checkpoint %s cannot be written: %s.", self.path, error.strerror)

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest checkpoint of this child that is whole, or None."""
        for path in (self.path, self.previous):
            try:
                header_line, _, blob = path.read_bytes().partition(b"\n")
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
            for path in [*self.path.parent.glob(f"{self.path.stem}.*.partial"), self.path, self.previous]:
                path.unlink(missing_ok=True)
