"""One worker process: starting it, waking it, ending it with all it started, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
LOG_TAIL = 10_000  # bytes

# Our root goes first, whatever folder the search was started from: that folder may have its own `child_trainers`.
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from child_trainers.worker import main; main()"


class WorkerProcess:
    """A worker in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Args:
        order: a line of JSON, sent through the pipe and not by arguments: those can be read by every user.
        environment: variables beside those of this process.
        pass_fd: a file descriptor that it inherits, to send news.
    """

    def __init__(self, name: str, order: str, *, log: Path, environment: Mapping[str, str], pass_fd: int) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, ROOT],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=[pass_fd],
                start_new_session=True,
            )
        self.sentinel = os.pidfd_open(self._process.pid)
        self._send(order.encode() + b"\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        code = self._process.returncode
        return code if code is not None and code >= 0 else None

    @property
    def signal(self) -> int | None:
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    @property
    def ending(self) -> str:
        """How it ended, for people."""
        if self.signal is None:
            return f"exit code {self.exit_code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(self.signal).name}"
        return f"signal {self.signal}"

    def poll(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def wake(self) -> None:
        self._send(b"w")

    def kill(self) -> None:
        """Ends it and every process of its group, at once; only the first call does."""
        if self.sentinel < 0:
            return  # its number, and that of its sentinel, may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        os.close(self.sentinel)
        self.sentinel = -1

    def log_tail(self) -> str:
        """The end of what it printed; empty where a person has removed the file."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - LOG_TAIL))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def _send(self, content: bytes) -> None:
        # It may have died a moment ago; `poll` will say so.
        with contextlib.suppress(BrokenPipeError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(content)
            self._process.stdin.flush()
