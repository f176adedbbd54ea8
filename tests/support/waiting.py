"""How long a test waits for an expected event, and how it waits for the end of a process."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator

# Not a measure of speed: an expected event comes within seconds on a free machine, and within minutes on a busy one.
# Only a failing test waits this long.
SECONDS = 900.0


@contextlib.contextmanager
def watched(pid: int) -> Iterator[int]:
    """A file descriptor that can be read once the process has ended."""
    sentinel = os.pidfd_open(pid)
    try:
        yield sentinel
    finally:
        os.close(sentinel)


def ended(sentinel: int, seconds: float = SECONDS) -> bool:
    """Whether a watched process ends within this time."""
    return bool(select.select([sentinel], [], [], seconds)[0])
