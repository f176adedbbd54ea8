"""How messages travel between a pool and one worker: a contract, and the pipes that are its first member."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Protocol

from automl.child_trainers.workers.messages import Message, decode, encode

CHUNK = 65_536  # bytes


class ChannelClosedError(Exception):
    """The other end is gone, and all that it sent was received."""


class Channel(Protocol):
    """One end of a connection between a pool and one worker. Messages arrive whole and in order."""

    def send(self, message: Message) -> None:
        """Sends a message. What is sent to an end that is gone is dropped: pools learn of workers' ends otherwise."""

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None where none comes within `timeout` seconds (None: waits for ever).

        Raises:
            ChannelClosedError: none will come any more.
            MessageError: what came is no message of this version.
        """

    def close(self) -> None:
        """Closes this end; the other is told. Only the first call does."""


class PipeChannel:
    """Two pipes between a process and one that it has started.

    Args:
        reading, writing: descriptors of the ends that this process reads from and writes to. They are closed with the
            channel.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._received = b""
        self._ended = False  # the other end is closed

    def fileno(self) -> int:
        """The descriptor that can be read when a message may have come, for `select`; -1 once none will come."""
        return -1 if self._ended else self._reading

    def drop_when_full(self) -> None:
        """From now on `send` drops what the other end does not read for long, instead of waiting for it."""
        os.set_blocking(self._writing, False)

    def send(self, message: Message) -> None:
        content = encode(message)
        # Short messages are written whole or, where the pipe is full, not at all.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            while content and self._writing >= 0:
                content = content[os.write(self._writing, content) :]

    def receive(self, timeout: float | None = None) -> Message | None:
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._received:
            if self.fileno() < 0:
                raise ChannelClosedError
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._reading], [], [], left)[0]:
                return None
            part = os.read(self._reading, CHUNK)
            if not part:
                self._ended = True
                raise ChannelClosedError
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return decode(line)

    def close(self) -> None:
        reading, writing, self._reading, self._writing = self._reading, self._writing, -1, -1
        for descriptor in (reading, writing):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
