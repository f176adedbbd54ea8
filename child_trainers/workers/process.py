"""One worker process: starts it, ends it with all processes that it started, and describes how it ended."""

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

ROOT = str(
    Path(__file__).absolute().parents[3]
)  # links are not resolved: in a checkout `automl/child_trainers` is a link

# The root of automl comes first on `sys.path`, because PYTHONPATH may name a folder with another `automl`.
START = """
import sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.workers.guard import fork_guard
fork_guard(int(sys.argv[2]))
to_pool = int(sys.argv[3])
del sys.argv[1:]
from automl.child_trainers.workers.serve import main
main(to_pool)
"""


def child_mark(number: int) -> str:
    """The line of a worker's log before the output of a child."""
    return f"Child {number} begins."


class WorkerProcess:
    """A worker process in its own session, so that Ctrl-C in a terminal does not reach it.

    Args:
        order: sent through the channel, because every user of the machine can read the arguments of a process.
        log: where the process prints.
        environment: environment variables that are added to those of this process.
        lifeline: the reading end of a pipe; when its other end is closed, the worker's process group is killed.

    Attributes:
        name: the name of the worker.
        log: the log of the worker.
        channel: the channel to the worker.
        sentinel: a file descriptor that becomes readable when the process has ended.

    Raises:
        StoreError: its log cannot be written.
    """

    def __init__(self, order: WorkerOrder, *, log: WorkerLog, environment: Mapping[str, str], lifeline: int) -> None:
        self.name = order.worker
        self.log = log
        with log.append() as output:
            self._log_start = output.tell()
            from_pool, to_worker = os.pipe()
            from_worker, to_pool = os.pipe()
            self.channel = PipeChannel(from_worker, to_worker)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, ROOT, str(lifeline), str(to_pool)],
                    stdin=from_pool,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    pass_fds=[to_pool, lifeline],
                    start_new_session=True,
                )
            except BaseException:
                self.channel.close()
                raise
            finally:
                os.close(from_pool)
                os.close(to_pool)
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
        """The exit code or signal with which the process ended, for the user."""
        if self.signal is None:
            return f"exit code {self.exit_code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(self.signal).name}"
        return f"signal {self.signal}"

    def poll(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kills the process and all processes of its group. Further calls do nothing."""
        if self.sentinel < 0:
            return  # its PID and the descriptor of its sentinel may have been reused
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.channel.close()
        os.close(self.sentinel)
        self.sentinel = -1

    def resident_bytes(self, *, shared_once: bool = False) -> int:
        """Memory in bytes of the process and its group, as far as it is known; 0 if the group has no process.

        Args:
            shared_once: whether memory that several processes share counts once (PSS), not once per process (RSS).
        """
        held = 0
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getpgid(pid) == self._process.pid:
                    process = psutil.Process(pid)
                    held += process.memory_full_info().pss if shared_once else process.memory_info().rss
        return held

    def log_tail(self, child: int | None = None) -> str:
        """The end of the output of the process, or of its output for one child."""
        text = self.log.read(self._log_start)
        return text if child is None else text.rpartition(child_mark(child))[2].lstrip("\n")
