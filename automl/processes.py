"""Processes of one thread each that run something beside this one."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable

from automl.child_trainers.devices import environment


def process_pool(count: int, begin: Callable[[], None] | None = None) -> concurrent.futures.ProcessPoolExecutor:
    """Processes of one thread each, which see no GPU and end when this process does.

    Args:
        begin: called in each process before its first work.
    """
    os.environ.update(environment(threads=1, gpu=None))
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(begin,))


def _begin(begin: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    """Ends this process when its parent ends for any reason. Otherwise a pool's process would wait forever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
