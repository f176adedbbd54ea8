"""The guard, a process that kills a worker's process group if the coordinator dies suddenly.

A worker imports this module before all others, so it imports little itself.
"""

from __future__ import annotations

import os
import signal


def fork_guard(lifeline: int) -> None:
    """Forks the guard. It waits until `lifeline`, a pipe that only the coordinator holds open, is closed. Then it kills
    the process group: the worker, and the processes that a child left running.

    The kernel's signal on a parent's death reaches only the worker. The guard is not a child process of the worker,
    because a task may wait for all its child processes.
    """
    if intermediate := os.fork():
        os.waitpid(intermediate, 0)
        os.close(lifeline)
        return
    if os.fork():
        os._exit(0)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.closerange(3, lifeline)
        os.closerange(lifeline + 1, 1024)
        os.read(lifeline, 1)
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)
