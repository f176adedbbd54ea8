"""Where the command begins, before anything slow is imported: standard streams, and Ctrl-C until work has begun."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from types import FrameType
from typing import Any

from automl.cli import streams
from automl.cli.terminal import print

STARTING = ("search", "resume", "train", "compare-optimizers")  # commands that start something

_terminal = 2  # a copy of standard error, which TensorFlow's import is kept from
_attributes: list[Any] | None = None  # of the terminal, which a view may have changed


def main() -> None:
    """The installed command."""
    streams.prepare()
    _end_at_once()
    code: int | str | None = 0
    try:
        from automl.cli.app import main as run

        run()
    except SystemExit as end:
        code = end.code
    except streams.OutputClosed:
        code = 0
    try:
        sys.stdout.flush()
    except streams.OutputClosed:
        pass
    except streams.OutputError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = code or 1
    sys.exit(code)


def begun() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, so that what has begun is brought to an end."""
    if signal.getsignal(signal.SIGINT) is _on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once() -> None:
    """Ctrl-C ends the process. An exception would not do: code that is being imported swallows it, or shows it."""
    global _terminal, _attributes
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        _terminal = os.dup(2)
        with contextlib.suppress(OSError, termios.error):
            _attributes = termios.tcgetattr(_terminal)
        signal.signal(signal.SIGINT, _on_interrupt)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    restored = b""
    if _attributes is not None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(_terminal, termios.TCSANOW, _attributes)
        restored = b"\r\x1b[2K\x1b[?25h"  # the line that a view was drawing is cleared, and the cursor shown
    starts = any(argument in STARTING for argument in sys.argv[1:2])
    with contextlib.suppress(OSError):
        os.write(_terminal, restored + (b"Nothing was started.\n" if starts else b""))
    os._exit(130)
