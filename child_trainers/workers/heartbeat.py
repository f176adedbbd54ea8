"""A thread that renews a lease while the main thread is busy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

logger = logging.getLogger(__name__)
INTERVAL = 5.0  # seconds; the shortest lease lasts 30


class Heartbeat:
    """Calls `beat` every few seconds until the `with` block ends or `beat` returns False.

    An exception of `beat` is logged, and `beat` is called again at the next interval: a busy store must not stop a
    child.

    Args:
        interval: seconds between two calls.
    """

    def __init__(self, beat: Callable[[], bool], interval: float = INTERVAL) -> None:
        self._beat = beat
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                if not self._beat():
                    return
            except Exception as error:
                logger.warning("A heartbeat failed (%s); the next one is in %.0f s.", error, self._interval)
