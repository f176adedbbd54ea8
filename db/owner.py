"""The owner of a lease: a process on a host, distinguished from later processes with the same number."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        boot: identifies the start of the machine.
        started: clock ticks since then; distinguishes processes with the same pid.
    """

    host: str
    boot: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Owner:
        return cls(platform.node(), _boot_id(), os.getpid(), _start_time(os.getpid()) or 0)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Owner:
        """The process that a store names. An invalid value gives an unknown process that never counts as gone.

        No signal is ever sent to it, since a store may contain any number.
        """
        fields = {name: value.get(name) for name in ("host", "boot", "pid", "started")}
        texts = all(isinstance(fields[name], str) for name in ("host", "boot"))
        numbers = all(type(fields[name]) is int for name in ("pid", "started"))
        return cls(**fields) if texts and numbers else cls("an unknown host", "", 0, 0)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def is_gone(self) -> bool:
        """Whether this process has certainly ended. False if it runs, or if this machine cannot know."""
        if self.host != platform.node() or not self.boot:
            return False
        return self.boot != _boot_id() or _start_time(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Clock ticks from the start of the machine to that of a process; None if it has ended or is a zombie."""
    import psutil  # slower to import than most commands are that only show a store

    ticks_per_second = os.sysconf("SC_CLK_TCK")
    try:
        while True:
            process = psutil.Process(pid)
            booted = psutil.boot_time()
            started = process.create_time() - booted
            if psutil.boot_time() == booted:  # otherwise the clock was set between the two calls
                break
        return None if process.status() == psutil.STATUS_ZOMBIE else round(started * ticks_per_second)
    except (psutil.Error, ValueError, OverflowError):  # a store may contain any number
        return None
