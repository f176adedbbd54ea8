"""A user's pool, from outside the packages: workers in threads that communicate through queues."""

from __future__ import annotations

import contextlib
import queue
import threading
import time

import pytest

import automl
from automl.child_trainers.workers.messages import Delivered, Ready, SearchFault, Wake
from automl.child_trainers.workers.monitor import WorkerMonitor
from automl.child_trainers.workers.pool import Pool, PoolError
from automl.child_trainers.workers.serve import serve
from automl.child_trainers.workers.transport import ChannelClosedError
from automl.db.records import SearchState, State

OURS = {"space": "mine.py:space", "task": "mine.py:evaluate", "controller": "random", "batch_size": 4, "seed": 3}
CLOSED = object()


class QueueChannel:
    """One end of two queues, without files."""

    def __init__(self, incoming, outgoing):
        self._incoming = incoming
        self._outgoing = outgoing

    def send(self, message):
        self._outgoing.put(message)

    def receive(self, timeout=None):
        try:
            message = self._incoming.get(timeout is None or timeout > 0, timeout)
        except queue.Empty:
            return None
        if message is CLOSED:
            self._incoming.put(CLOSED)
            raise ChannelClosedError
        return message

    def close(self):
        self._outgoing.put(CLOSED)


class ThreadPool(Pool):
    """A worker in a thread of this process, watched by a monitor like any other."""

    def __init__(self, setup):
        self._setup = setup
        self._store = setup.store
        to_worker, self._from_worker = queue.Queue(), queue.Queue()
        self._channel = QueueChannel(self._from_worker, to_worker)
        self._monitor = WorkerMonitor(setup.deadlines, time.monotonic())
        self._order = setup.order.to(0, 1, "a thread")
        self._thread = threading.Thread(
            target=serve,
            args=(self._order, QueueChannel(to_worker, self._from_worker)),
            kwargs={"log": None, "on_closed": lambda: None},
            daemon=True,
        )
        self._thread.start()
        self.heard = []

    def resident_bytes(self, *, shared_once=False):
        return 0

    def _receive(self):
        message = self._channel.receive(timeout=0.0)
        if message is not None:
            self.heard.append(type(message))
        return message

    def tend(self):
        ended = False
        while (message := self._receive()) is not None:
            if isinstance(message, SearchFault):
                raise PoolError(message.sentence)
            self._monitor.ready(time.monotonic())
            if isinstance(message, Delivered):
                self._monitor.delivered(time.monotonic())
                ended = True
        running = self._store.children(self._order.search_id, states=[State.RUNNING])
        if (overdue := self._monitor.overdue(time.monotonic(), self, running)) is not None:
            raise PoolError(overdue.reason)
        return ended

    def wait(self, seconds):
        time.sleep(min(seconds, 0.01))

    def wake(self):
        self._channel.send(Wake())

    def close(self):
        self._channel.close()
        self._thread.join()
        with contextlib.suppress(ChannelClosedError):
            while self._receive() is not None:  # the search may end before the last messages are read
                pass


def digest(store):
    opened = automl.open_store(store)
    try:
        return opened.digest(opened.search("mine").id)
    finally:
        opened.close()


def test_a_users_pool_trains_the_same_search(mine, folder):
    pools = []

    def make(setup):
        pools.append(ThreadPool(setup))
        return pools[-1]

    result = automl.search("mine", **OURS, workers=1, children=8, store="own.db", pool=make)
    assert result.ending.state == SearchState.FINISHED
    (pool,) = pools
    assert pool.heard[0] is Ready and pool.heard.count(Delivered) == 8
    assert {child.worker for child in result.children if child.state == "trained"} == {"1.0.1"}
    automl.search("mine", **OURS, workers=0, children=6, store="inline.db", replicas=2)
    automl.resume("mine", store="inline.db", children=8, pool=ThreadPool, workers=1)
    assert digest("own.db") == digest("inline.db")


def test_an_object_that_is_not_a_pool(mine, folder):
    with pytest.raises(TypeError, match=r"The argument pool must make a Pool .*, got <object object"):
        automl.search("mine", **OURS, workers=1, children=8, pool=lambda setup: object())
