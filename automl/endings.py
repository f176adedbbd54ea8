"""How a run of a search ends, its exit code, and the request to stop it."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable

from automl.db.records import SearchState

GRACE_SECONDS = 10.0  # for running children, after a request to stop
CTRL_C = "stopped by SIGINT"  # the cause of a pause after Ctrl-C
TIME_OVER = "the time given with --time is over"
GIVEN_TIME_OVER = "the time that was given is over"  # the same for the Python API


class ExitCode(enum.IntEnum):
    """The exit code of a command that runs a search."""

    DONE = 0  # the budget of children or time is used up, or the whole space is trained
    ERROR = 1
    USAGE = 2
    PAUSED = 3  # by automl stop, by a signal, or after repeated failures
    FAILED = 4  # no child is trained, or the space is exhausted and some of its children failed
    INTERRUPTED = 130  # by Ctrl-C


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a run of a search ended.

    Attributes:
        cause: why the run paused, or None.
        failed: whether it paused because of failures.
        trained: how many children of the search are trained.
        failures: how many children of the search failed or are lost.
    """

    state: SearchState
    cause: str | None = None
    failed: bool = False
    trained: int = 0
    failures: int = 0

    @property
    def exit_code(self) -> ExitCode:
        if self.state == SearchState.PAUSED and self.cause not in (TIME_OVER, GIVEN_TIME_OVER):
            return ExitCode.INTERRUPTED if self.cause == CTRL_C else ExitCode.PAUSED
        # A budget counts only trained children; an exhausted space is not fully trained if children failed.
        missing = self.failures if self.state == SearchState.EXHAUSTED else 0
        return ExitCode.FAILED if missing or not self.trained else ExitCode.DONE

    @property
    def ok(self) -> bool:
        """Whether the search reached its budget, or trained its whole space."""
        return self.exit_code == ExitCode.DONE


class Stop:
    """A request to stop: nothing more is claimed, and running children get a grace period.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._made = clock()
        self.cause: str | None = None
        self._since = 0.0

    def request(self, cause: str) -> None:
        """Requests the stop; only the first cause counts."""
        if self.cause is None:
            self.cause, self._since = cause, self._clock()

    @property
    def age(self) -> float:
        """Seconds since the run began, its preparation included."""
        return self._clock() - self._made

    @property
    def overdue(self) -> bool:
        """Whether the grace period is over."""
        return self.cause is not None and self._clock() - self._since > GRACE_SECONDS


class StopNow(BaseException):
    """Ends a child that trains in this process when its grace period is over."""
