"""Asks other programs, such as those of a GPU's driver, which may hang. Imports nothing slow."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class NoAnswerError(Exception):
    """A program could not be started, or did not end in time. The message is a phrase."""


class Answer(NamedTuple):
    """How a program ended: its exit code, and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def first_line(self) -> str:
        """The first line that it printed, first of its errors; its exit code if it printed nothing."""
        lines = [line.strip() for line in f"{self.errors}\n{self.output}".splitlines() if line.strip()]
        return lines[0][:200] if lines else f"exit code {self.code}"


def ask(
    command: Sequence[str], *, seconds: float, text: str = "", environment: Mapping[str, str] | None = None
) -> Answer:
    """Runs a program until it ends.

    Args:
        seconds: after which the program and the processes that it started are killed.
        text: what it reads.
        environment: all of its environment variables; None for those of this process.

    Raises:
        NoAnswerError: the program could not be started, or did not end in time.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise NoAnswerError(f"it cannot be started: {error.strerror or error}") from None
    try:
        output, errors = process.communicate(text.encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        # The kernel ends no process that waits for a broken driver, so nobody waits for it either.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        raise NoAnswerError(f"it did not answer within {seconds:g} seconds") from None
    return Answer(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))
