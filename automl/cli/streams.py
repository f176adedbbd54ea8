"""Handles standard streams that are closed or full, or whose encoding lacks a character. Imports nothing slow."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

from automl.cli.terminal import print


class OutputClosed(BaseException):
    """The reader of standard output is gone, as in `automl list | head -1`. This is not an error: the command ends.

    It derives from BaseException, so that no `except Exception` catches it.
    """


class OutputError(ValueError):
    """Standard output cannot be written."""


class _Descriptor(io.RawIOBase):
    """A file descriptor for writing. After a write has failed, further writes are dropped.

    Attributes:
        needed: whether a failure ends the command.
    """

    def __init__(self, number: int, *, needed: bool) -> None:
        self._number = number
        self._failed = False
        self.needed = needed

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self._failed:
            return len(data)
        try:
            return os.write(self._number, data)
        except BlockingIOError:
            return None
        except OSError as error:
            self._failed = True
            if not self.needed:
                if self._number == 1:
                    print("Standard output is closed; the command goes on without it.", file=sys.stderr, flush=True)
                return len(data)
            if error.errno == errno.EPIPE:
                raise OutputClosed from None
            raise OutputError(f"Standard output cannot be written: {error.strerror}.") from None


def prepare() -> None:
    """Makes this process's standard streams safe to use. A closed one is opened on /dev/null: otherwise the next file,
    such as the store's, would get its descriptor, and printed text would be written to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = _wrapped(sys.stderr, 2, needed=False)
    sys.stdout = _wrapped(sys.stdout, 1, needed=True)


def ignore_closed_output() -> None:
    """Makes the command continue from now on if its output is closed."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Descriptor):
        raw.needed = False


def _wrapped(stream: TextIO | None, number: int, *, needed: bool) -> TextIO:
    buffer = io.BufferedWriter(_Descriptor(number, needed=needed))
    return io.TextIOWrapper(
        buffer,
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",  # for characters that the terminal's encoding lacks
        line_buffering=getattr(stream, "line_buffering", True),
        write_through=getattr(stream, "write_through", False),
    )
