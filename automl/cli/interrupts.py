"""Handles Ctrl-C and the end of `--time`: either stops the search cleanly, and a second Ctrl-C stops it at once."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from automl.endings import GRACE_SECONDS, TIME_OVER, Stop, StopNow

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context manager that turns signals and the end of the time limit into a request to stop.

    If children train in this process, a child that still trains after the grace period is interrupted.
    """

    def __init__(self, stop: Stop, time_limit: float | None, *, inline: bool) -> None:
        self._stop = stop
        self._deadline = None if time_limit is None else time.monotonic() + time_limit
        self._inline = inline
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP; a script's `&` ignores SIGINT
                self._before[number] = signal.signal(number, self._on_signal)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        if self._deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, self._deadline - time.monotonic()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop.cause is not None:
            raise KeyboardInterrupt
        self._request(f"stopped by {signal.Signals(number).name}")

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        if self._stop.cause is None:
            self._request(TIME_OVER)
        elif self._inline:
            raise StopNow

    def _request(self, cause: str) -> None:
        self._stop.request(cause)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
