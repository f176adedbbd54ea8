"""Transport of messages between a pool and one worker: a contract, and its first implementation, a pair of pipes."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Protocol

from automl.child_trainers.workers.messages import Message, decode, encode

CHUNK = 65_536  # bytes


class ChannelClosedError(Exception):
    """The other end is closed, and all its messages were received."""


class Channel(Protocol):
    """One end of a connection between a pool and one worker. Messages arrive whole and in order."""

    def send(self, message: Message) -> None:
        """Sends a message. If the other end is closed, the message is dropped: a pool detects the end of a worker in
        another way."""

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, or None if no message comes within `timeout` seconds (None: waits without limit).

        Raises:
            ChannelClosedError: no more messages will come.
            MessageError: this version does not know the received message.
        """

    def close(self) -> None:
        """Closes this end, which the other end detects. Further calls do nothing."""


class PipeChannel:
    """A pair of pipes between a process and a subprocess.

    Args:
        reading, writing: the descriptors from which this process reads and to which it writes. `close` closes them.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._received = b""
        self._ended = False  # the other end is closed

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message may have come, for `select`; -1 if no more will come."""
        return -1 if self._ended else self._reading

    def drop_when_full(self) -> None:
        """From now on `send` drops a message if the pipe is full, instead of waiting until the other end reads."""
        os.set_blocking(self._writing, False)

    def send(self, message: Message) -> None:
        content = encode(message)
        # Messages of up to PIPE_BUF bytes are written completely or, if the pipe is full, not at all.
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
