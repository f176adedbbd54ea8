"""Fetches a file whose size and checksum are known."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from automl.child_trainers.data.dataset import DataError

CHUNK_BYTES = 1 << 18
# A folder that only a store names may be any folder of the user: it is only read.
NO_DOWNLOAD = "they are downloaded only to a folder that --data-dir or AUTOML_DATA names"

Progress = Callable[[int, int], None]


class Download(Protocol):
    """What is fetched.

    Attributes:
        url: http or https.
        sha256: in hex.
        num_bytes: its exact size.
        timeout: seconds without an answer or a further byte, after which the download has failed.
    """

    @property
    def url(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def timeout(self) -> float: ...


def fetch(wanted: Download, target: Path, progress: Progress | None) -> None:
    """Writes the file to `target`.

    Raises:
        DataError: another size or checksum than expected.
        OSError, http.client.HTTPException: the server or the connection failed.
    """
    digest = hashlib.sha256()
    num_bytes = 0
    try:
        with urllib.request.urlopen(wanted.url, timeout=wanted.timeout) as response, open(target, "wb") as file:
            # read1 returns what has arrived; read would wait for a whole chunk and make progress look stuck.
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                num_bytes += len(chunk)
                if num_bytes > wanted.num_bytes:
                    raise DataError(f"the server sent more than the expected {wanted.num_bytes} bytes")
                if progress is not None:
                    progress(num_bytes, wanted.num_bytes)
    except urllib.error.HTTPError as error:
        error.close()  # it is also the response, and keeps the connection open
        raise
    if num_bytes < wanted.num_bytes:
        raise DataError(f"the connection ended after {num_bytes} of {wanted.num_bytes} bytes")
    if digest.hexdigest() != wanted.sha256:
        raise DataError(f"expected sha256 {wanted.sha256}, found {digest.hexdigest()}")


def what_failed(error: Exception, wanted: Download) -> str:
    """A failed download in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"nothing came for {wanted.timeout:g} seconds"
    # Cut to a line: a server that does not speak HTTP is quoted here with whatever it sent.
    return " ".join(str(error).split())[:300] or type(error).__name__
