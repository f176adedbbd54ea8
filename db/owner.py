"""Who holds a search: a process on a host, told apart from a later one with the same number."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process: `boot` tells starts of a machine apart, `started` (clock ticks since boot) processes of one pid."""

    host: str
    boot: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Owner:
        return cls(platform.node(), _boot_id(), os.getpid(), _start_time(os.getpid()) or 0)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Owner:
        """The process that a store names. If the value is not valid, it is an unknown process that never counts as
        gone. No signal is sent to it: a number in a store need not be one of our processes."""
        fields = {name: value.get(name) for name in ("host", "boot", "pid", "started")}
        texts = all(isinstance(fields[name], str) for name in ("host", "boot"))
        numbers = all(type(fields[name]) is int for name in ("pid", "started"))
        return cls(**fields) if texts and numbers else cls("an unknown host", "", 0, 0)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def is_gone(self) -> bool:
        """True where this process surely runs no more; False where it runs, or where that cannot be told from here."""
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
    """Clock ticks from the start of the machine to that of a process; None where there is none, or only its zombie."""
    import psutil  # takes longer to import than most looks at a store

    ticks_a_second = os.sysconf("SC_CLK_TCK")
    try:
        while True:
            process = psutil.Process(pid)
            booted = psutil.boot_time()
            started = process.create_time() - booted
            if psutil.boot_time() == booted:  # else the clock was set in between
                break
        return None if process.status() == psutil.STATUS_ZOMBIE else round(started * ticks_a_second)
    except (psutil.Error, ValueError, OverflowError):  # the number may be any that a store holds
        return None
