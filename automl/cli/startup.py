"""Handles Ctrl-C while a command starts, before it has begun work that it must end cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from types import FrameType
from typing import Any

STARTING = ("search", "resume", "train", "compare-optimizers", "bench")  # commands that start something

_terminal = 2  # a copy of standard error; descriptor 2 itself is redirected while TensorFlow is imported
_attributes: list[Any] | None = None  # settings of the terminal before a view changes them


def exit_on_interrupt() -> None:
    """Makes Ctrl-C end the process at once from now on. An exception would not do so: a module that is being imported
    may catch it or print it."""
    global _terminal, _attributes
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent process ignores it
        _terminal = os.dup(2)
        with contextlib.suppress(OSError, termios.error):
            _attributes = termios.tcgetattr(_terminal)
        signal.signal(signal.SIGINT, _on_interrupt)


def finish() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt from now on, so that the command can end its work cleanly."""
    if signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    restored = b""
    if _attributes is not None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(_terminal, termios.TCSANOW, _attributes)
        restored = b"\r\x1b[2K\x1b[?25h"  # clear the line that a view was drawing, show the cursor
    starts = any(argument in STARTING for argument in sys.argv[1:2])
    with contextlib.suppress(OSError):
        os.write(_terminal, restored + (b"Nothing was started.\n" if starts else b""))
    os._exit(130)
