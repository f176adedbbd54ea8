"""A process beside each worker that outlives a coordinator's sudden death just long enough to end the worker's group.

Imported before anything else in a worker, so it imports little itself.
"""

from __future__ import annotations

import os
import signal


def leave_guard(lifeline: int) -> None:
    """Forks a process that waits for the end of `lifeline`, a pipe that only the coordinator holds open, and then kills
    the whole process group: the worker, and whatever a child left running.

    The kernel's signal on a parent's death reaches the worker alone. The guard is no child of the worker: a task may
    wait for all of its own.
    """
    if between := os.fork():
        os.waitpid(between, 0)
        os.close(lifeline)
        return
    if os.fork():
        os._exit(0)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.closerange(3, lifeline)
        os.closerange(lifeline + 1, 1024)
        os.read(lifeline, 1)
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)
