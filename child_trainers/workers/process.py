"""One worker process: starting it, speaking with it, ending it with all it started, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from automl.child_trainers.artefacts import WorkerLog
from automl.child_trainers.workers.messages import WorkerOrder
from automl.child_trainers.workers.transport import PipeChannel

ROOT = str(Path(__file__).absolute().parents[3])  # links are not resolved: in a checkout `automl/child_trainers` is one

# Our root goes first, whatever folder the search was started from: PYTHONPATH may name a folder with its own `automl`.
START = """
import sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.workers.guard import leave_guard
leave_guard(int(sys.argv[2]))
news = int(sys.argv[3])
del sys.argv[1:]
from automl.child_trainers.workers.serve import main
main(news)
"""


def child_mark(number: int) -> str:
    """The line that divides a child's output from that of the one before."""
    return f"Child {number} begins."


class WorkerProcess:
    """A worker in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Args:
        order: sent through the channel and not by arguments: those can be read by every user.
        environment: variables beside those of this process.
        lifeline: the reading end of a pipe; once its other end is closed, the worker's group is killed.

    Attributes:
        channel: to the worker.
        sentinel: a descriptor that can be read once the process has ended.

    Raises:
        StoreError: its log cannot be written.
    """

    def __init__(self, order: WorkerOrder, *, log: WorkerLog, environment: Mapping[str, str], lifeline: int) -> None:
        self.name = order.worker
        self.log = log
        with log.append() as output:
            self._log_start = output.tell()
            commands, to_worker = os.pipe()
            from_worker, news = os.pipe()
            self.channel = PipeChannel(from_worker, to_worker)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, ROOT, str(lifeline), str(news)],
                    stdin=commands,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    pass_fds=[news, lifeline],
                    start_new_session=True,
                )
            except BaseException:
                self.channel.close()
                raise
            finally:
                os.close(commands)
                os.close(news)
        self.sentinel = os.pidfd_open(self._process.pid)
        self.channel.send(order)
        self.channel.drop_when_full()

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
        """How it ended, for the user."""
        if self.signal is None:
            return f"exit code {self.exit_code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(self.signal).name}"
        return f"signal {self.signal}"

    def poll(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends it and every process of its group, at once; only the first call does."""
        if self.sentinel < 0:
            return  # its number, and that of its sentinel, may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.channel.close()
        os.close(self.sentinel)
        self.sentinel = -1

    def resident_bytes(self, *, shared_once: bool = False) -> int:
        """Memory that the process and its group hold, as far as can be told; 0 where there is none.

        Args:
            shared_once: what several processes share counts once, not for each (Pss in place of resident memory).
        """
        held = 0
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getpgid(pid) == self._process.pid:
                    process = psutil.Process(pid)
                    held += process.memory_full_info().pss if shared_once else process.memory_info().rss
        return held

    def log_tail(self, child: int | None = None) -> str:
        """The end of what it printed, or of what it printed for a child."""
        text = self.log.read(self._log_start)
        return text if child is None else text.rpartition(child_mark(child))[2].lstrip("\n")
