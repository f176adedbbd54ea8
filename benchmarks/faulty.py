"""A space of 200 children. A third of them have a fault, of fourteen kinds; `pool_faults.py` searches the space."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

from automl import Choice

CHILDREN = 200
SECONDS = 0.4  # of a child without a fault


def space() -> Generator[Choice, Any, int]:
    return (yield Choice("child", tuple(range(CHILDREN))))


def raise_error() -> None:
    raise RuntimeError("as asked")


def return_nothing_useful() -> str:
    return "no number"


def diverge() -> float:
    return float("nan")


def exit_python() -> None:
    sys.exit(3)


def exit_at_once() -> None:
    os._exit(3)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    while True:
        time.sleep(1)


def hang_deaf() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang_with_offspring() -> None:
    for _ in range(3):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    hang()


def leave_offspring() -> float:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    return 1.0


def leak() -> None:
    held = []
    while True:
        held.append(bytearray(50 * 2**20))
        time.sleep(0.05)


def run_out_of_memory() -> None:
    raise MemoryError


# The function that a child runs, the state in which it ends, and its fault if it fails.
DEEDS: list[tuple[Callable[[], Any], str, str | None]] = [
    (raise_error, "failed", "raised"),
    (return_nothing_useful, "failed", "invalid"),
    (diverge, "failed", "diverged"),
    (exit_python, "failed", "raised"),
    (exit_at_once, "failed", "crashed"),
    (kill_itself, "failed", "crashed"),
    (segfault, "failed", "crashed"),
    (hang, "failed", "timeout"),
    (hang_deaf, "failed", "timeout"),
    (stop_itself, "failed", "timeout"),
    (hang_with_offspring, "failed", "timeout"),
    (leave_offspring, "trained", None),
    (leak, "failed", "oom"),
    (run_out_of_memory, "failed", "oom"),
]


def deed_of(child: int) -> tuple[Callable[[], Any], str, str | None] | None:
    """The entry of the child in `DEEDS`; None for a child without a fault."""
    return DEEDS[child // 3 % len(DEEDS)] if child % 3 == 0 else None


def evaluate(spec: int) -> Any:
    deed = deed_of(spec)
    if deed is not None:
        return deed[0]()
    time.sleep(SECONDS)
    return float(spec)
