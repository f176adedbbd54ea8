"""Downloads a file whose size and checksum are known."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from automl.child_trainers.data.dataset import DataError

CHUNK_BYTES = 1 << 14  # small, so that progress moves even on a slow connection
# A folder that only a store names may be any folder of the user's, so nothing is written to it.
NO_DOWNLOAD = "they are downloaded only to a folder that --data-dir or AUTOML_DATA names"

Progress = Callable[[int, int], None]


class Download(Protocol):
    """A file to download.

    Attributes:
        url: http or https.
        sha256: in hex.
        num_bytes: the exact size in bytes.
        timeout: seconds without an answer or another byte after which the download fails.
    """

    @property
    def url(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def timeout(self) -> float: ...


class _CheckedFile:
    """An open file that counts and hashes the bytes written to it, and refuses more than the expected size."""

    def __init__(self, file: IO[bytes], wanted: Download, progress: Progress | None) -> None:
        self._file = file
        self._wanted = wanted
        self._progress = progress
        self.num_bytes = 0
        self.digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self.num_bytes += len(chunk)
        if self.num_bytes > self._wanted.num_bytes:
            raise DataError(f"the server sent more than the expected {self._wanted.num_bytes} bytes")
        self._file.write(chunk)
        self.digest.update(chunk)
        if self._progress is not None:
            self._progress(self.num_bytes, self._wanted.num_bytes)

    def flush(self) -> None:
        self._file.flush()


def fetch(wanted: Download, target: Path, progress: Progress | None) -> None:
    """Downloads a file to `target`, which is written only if the checksum is right.

    Args:
        progress: called with the bytes received and the total bytes.

    Raises:
        DataError: the size or the checksum differs from the expected one.
        OSError: the server or the connection failed; `requests.RequestException` is one.
    """
    import pooch  # imported here: with requests, it takes longer to import than most data sets to load

    pooch.get_logger().setLevel(logging.ERROR)  # hides the messages that name its target folder
    received = None

    def download(url: str, output_file: Any, _: Any) -> None:
        nonlocal received
        responses: list[Any] = []
        hooks = {"response": lambda response, **_: responses.append(response)}
        get = pooch.HTTPDownloader(chunk_size=CHUNK_BYTES, timeout=wanted.timeout, hooks=hooks)
        try:
            with open(output_file, "wb") as file:
                received = _CheckedFile(file, wanted, progress)
                get(url, received, None)
        finally:
            for response in responses:  # pooch leaves the connection open if the download fails
                response.close()

    known_hash = f"sha256:{wanted.sha256}"
    try:
        pooch.retrieve(wanted.url, known_hash, fname=target.name, path=target.parent, downloader=download)
    except DataError:
        raise
    except (ValueError, OSError) as error:
        num_bytes = 0 if received is None else received.num_bytes
        if 0 < num_bytes < wanted.num_bytes and not _is_timeout(error):
            raise DataError(f"the connection ended after {num_bytes} of {wanted.num_bytes} bytes") from error
        if received is None or isinstance(error, OSError):
            raise
        raise DataError(f"expected sha256 {wanted.sha256}, found {received.digest.hexdigest()}") from error


def describe_failure(error: Exception, wanted: Download) -> str:
    """The reason of a failed download, for a message."""
    if _is_timeout(error):
        return f"no data came for {wanted.timeout:g} seconds"
    # Cut to one short line: the error quotes whatever a server that does not speak HTTP has sent.
    return " ".join(str(_cause_of(error)).split())[:300] or type(error).__name__


def _is_timeout(error: Exception) -> bool:
    """Whether the error is a timeout of the connection."""
    import requests
    import urllib3.exceptions

    timeouts = (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError)
    return isinstance(error, timeouts) or isinstance(_cause_of(error), timeouts)


def _cause_of(error: Exception) -> Exception:
    """The cause of an error of requests, which may wrap a MaxRetryError of urllib3, which wraps the reason."""
    import requests
    import urllib3.exceptions

    inner = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    if isinstance(inner, urllib3.exceptions.MaxRetryError) and inner.reason is not None:
        return inner.reason
    return inner if isinstance(inner, Exception) else error
