"""NVIDIA MPS (Multi-Process Service), with which the kernels of several processes run on a GPU at the same time.

A server that already runs is used and never stopped. Otherwise a search whose workers share a GPU has a server of its
own. Its keeper, a process like the guard (`guard.py`), starts it, waits until the coordinator ends, and stops it then.

Source: NVIDIA, Multi-Process Service, sections "nvidia-cuda-mps-control" and "Environment variables".
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from automl.child_trainers.other_programs import NoAnswerError, ask

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
DEFAULT_PIPES = "/tmp/nvidia-mps"  # where CUDA looks for a server if the environment names no folder
ANSWER_SECONDS = 10.0  # for one command of the control program
QUIT_SECONDS = 5  # after which the server ends its clients
STOP_SECONDS = QUIT_SECONDS + 2 * ANSWER_SECONDS  # for the keeper to stop its server
READY = "ready"

# As for a worker, the root of automl comes first on `sys.path`.
START = """
import sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.workers.mps import keep
keep(int(sys.argv[2]), sys.argv[3], sys.argv[4])
"""


class MpsServer:
    """The MPS server of a search.

    Attributes:
        environment: the variables with which workers find it; empty for a server that already ran.
    """

    def __init__(self, environment: Mapping[str, str], keeper: subprocess.Popen[str] | None = None) -> None:
        self.environment = environment
        self._keeper = keeper

    def close(self) -> None:
        """Waits until the keeper has stopped the server. Close the lifeline before."""
        if self._keeper is not None:
            _end(self._keeper)


class MpsError(Exception):
    """No server can be started. The message is a phrase."""


def running_mps() -> str | None:
    """The folder of the pipes of a server that already runs; None if there is none."""
    control, pipes = shutil.which(CONTROL), os.environ.get(PIPES) or DEFAULT_PIPES
    if control is None or not Path(pipes).is_dir():
        return None
    try:
        answer = ask([control], seconds=ANSWER_SECONDS, text="get_server_list\n", environment=_environment(pipes))
    except NoAnswerError:
        return None
    return pipes if answer.code == 0 else None


def start_mps(root: str, lifeline: int, uuids: Sequence[str]) -> MpsServer | None:
    """Starts a server for workers that share GPUs, unless one runs. None where MPS is not installed.

    Args:
        root: the folder of automl, from which the keeper imports it.
        lifeline: the reading end of a pipe; when its other end is closed, the server is stopped.
        uuids: the UUIDs of the GPUs; empty for all.

    Raises:
        MpsError: the server could not be started.
    """
    control = shutil.which(CONTROL)
    if control is None:
        return None
    if running_mps() is not None:
        return MpsServer({})
    folder = tempfile.mkdtemp(prefix="automl-mps-")
    variables = {PIPES: f"{folder}/pipe", LOGS: f"{folder}/log"}
    try:
        for path in variables.values():
            os.mkdir(path, 0o700)
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-c", START, root, str(lifeline), control, folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(**variables, CUDA_VISIBLE_DEVICES=",".join(uuids) or None),
            pass_fds=[lifeline],
            start_new_session=True,
            text=True,
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise MpsError(error.strerror or str(error)) from None
    assert keeper.stdout is not None
    with keeper.stdout:
        told = select.select([keeper.stdout], [], [], STOP_SECONDS)[0]
        answer = keeper.stdout.readline().strip() if told else "it did not start in time"
    if answer == READY:
        return MpsServer(variables, keeper)
    _end(keeper)
    shutil.rmtree(folder, ignore_errors=True)
    raise MpsError(answer or "its keeper ended")


def keep(lifeline: int, control: str, folder: str) -> None:
    """The keeper's process: starts the server, prints one line about that, and stops the server once `lifeline` is
    closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    answer = READY
    try:
        started = _start_daemon(control, f"{folder}/log")
        if started:
            answer = started
        _tell(answer)
        if answer == READY:
            os.read(lifeline, 1)
    finally:
        _stop_daemon(control, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _start_daemon(control: str, logs: str) -> str:
    """Starts the server. Returns what went wrong, or ""."""
    # Into a file: the daemon may keep a pipe open, whose reader would wait for ever.
    with open(f"{logs}/start", "w+") as printed:
        try:
            code = subprocess.run(
                [control, "-d"],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=ANSWER_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"it did not start within {ANSWER_SECONDS:g} seconds"
        except OSError as error:
            return error.strerror or str(error)
        printed.seek(0)
        lines = printed.read().splitlines()
    return "" if code == 0 else " ".join(lines[:1]) or f"exit code {code}"


def _stop_daemon(control: str, folder: str) -> None:
    """Stops the server, and kills its daemon if it does not end by itself."""
    with contextlib.suppress(NoAnswerError):
        ask([control], seconds=QUIT_SECONDS + ANSWER_SECONDS, text=f"quit -t {QUIT_SECONDS}\n")
    with contextlib.suppress(OSError, ValueError):  # the file is gone once the daemon has ended
        pid = int(Path(folder, "pipe", f"{CONTROL}.pid").read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() == CONTROL[:15]:  # else another process has its PID by now
            os.kill(pid, signal.SIGKILL)


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # the coordinator is gone
        print(line, flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)


def _environment(pipes: str | None = None, **changes: str | None) -> dict[str, str]:
    """The environment of this process with some variables changed, or left out for None."""
    changed = {**os.environ, **({} if pipes is None else {PIPES: pipes}), **changes}
    return {name: value for name, value in changed.items() if value is not None}


def _end(keeper: subprocess.Popen[str]) -> None:
    try:
        keeper.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()
