"""One worker process: starting it, waking it, ending it with all it started, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from automl.db import own_files
from automl.db.records import StoreError

ROOT = str(Path(__file__).absolute().parents[3])  # links are not resolved: in a checkout `automl/child_trainers` is one
LOG_TAIL = 2**20  # bytes
LOG_FOLDERS = 2  # of ours, of a worker's log: the folder beside the store, and in it the search's

# Our root goes first, whatever folder the search was started from: PYTHONPATH may name a folder with its own `automl`.
START = """
import sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.workers.guard import leave_guard
leave_guard(int(sys.argv[2]))
del sys.argv[1:]
from automl.child_trainers.workers.worker import main
main()
"""
PAGE = os.sysconf("SC_PAGE_SIZE")


def child_mark(number: int) -> str:
    """The line that divides a child's output from that of the one before."""
    return f"Child {number} begins."


def read_tail(log: Path, start: int) -> str:
    """What was written to a log since an offset, at most its last megabyte; empty where the file was removed."""
    try:
        with open(own_files.open_file(log, os.O_RDONLY, own=LOG_FOLDERS), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def size_of(log: Path) -> int:
    """Bytes in a log; 0 where there is none."""
    try:
        descriptor = own_files.open_file(log, os.O_RDONLY, own=LOG_FOLDERS)
    except OSError:
        return 0
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def proportional_bytes(process: Path) -> int:
    """Memory that a process holds, with its part of what it shares (Pss); `process` is its folder in /proc."""
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def own_resident_bytes() -> int:
    """Memory that this process holds; 0 where it cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


class WorkerProcess:
    """A worker in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Args:
        order: a line of JSON, sent through the pipe and not by arguments: those can be read by every user.
        environment: variables beside those of this process.
        news: a file descriptor that it inherits, to send news.
        lifeline: the reading end of a pipe; once its other end is closed, the worker's group is killed.

    Raises:
        StoreError: its log cannot be written.
    """

    def __init__(
        self, name: str, order: str, *, log: Path, environment: Mapping[str, str], news: int, lifeline: int
    ) -> None:
        self.name = name
        self.log = log
        try:
            descriptor = own_files.open_file(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=LOG_FOLDERS)
        except OSError as error:
            raise StoreError(f"The log {log} cannot be written: {error.strerror}.") from error
        with open(descriptor, "ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, ROOT, str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=[news, lifeline],
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

    def resident_bytes(self, *, shared_once: bool = False) -> int:
        """Memory that the process and its group hold, as far as /proc tells; 0 where there is none.

        Args:
            shared_once: what several of them share counts once, not for each.
        """
        held = 0
        for entry in os.scandir("/proc") if os.path.isdir("/proc/self") else ():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                # After the command's name, which may hold spaces: state, parent, group, …; resident pages are the 22nd.
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) != self._process.pid:
                    continue
                held += proportional_bytes(Path(entry.path)) if shared_once else int(fields[21]) * PAGE
        return held

    def log_tail(self, child: int | None = None) -> str:
        """The end of what it printed, or of what it printed for a child."""
        text = read_tail(self.log, self._log_start)
        return text if child is None else text.rpartition(child_mark(child))[2].lstrip("\n")

    def _send(self, content: bytes) -> None:
        # It may have died a moment ago; `poll` will say so.
        with contextlib.suppress(BrokenPipeError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(content)
            self._process.stdin.flush()
