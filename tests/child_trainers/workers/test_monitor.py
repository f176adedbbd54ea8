"""When a worker is overdue: time is an argument, and nothing waits."""

import dataclasses

import pytest

from automl.child_trainers.workers.monitor import Deadlines, Overdue, WorkerMonitor
from automl.db.records import Fault

GIBI = 2**30


@dataclasses.dataclass(frozen=True)
class Running:
    """The part of a child that a monitor looks at."""

    number: int
    progress: int = 0


class FakeWorker:
    def __init__(self, resident=0, shared_once=None):
        self.resident = resident
        self.once = resident if shared_once is None else shared_once
        self.looks = []

    def resident_bytes(self, *, shared_once=False):
        self.looks.append(shared_once)
        return self.once if shared_once else self.resident


def monitor(**deadlines):
    return WorkerMonitor(Deadlines(**{"stall": 60.0} | deadlines), now=1000.0)


def reason(found):
    return None if found is None else found.reason


def test_a_worker_that_is_never_ready():
    watched = monitor()
    assert watched.overdue(1060.0, FakeWorker(), []) is None
    assert watched.overdue(1060.1, FakeWorker(), []) == Overdue(Fault.TIMEOUT, "it was not ready after 60 s (--stall)")
    assert not watched.is_ready


def test_a_worker_that_is_ready_may_wait_for_ever():
    watched = monitor()
    watched.ready(1050.0)
    assert watched.is_ready and watched.overdue(1e9, FakeWorker(), []) is None


def test_a_child_that_makes_no_step():
    watched = monitor()
    watched.ready(1000.0)
    for now, progress in ((1000.0, 0), (1050.0, 1), (1100.0, 2), (1160.0, 2)):
        assert watched.overdue(now, FakeWorker(), [Running(3, progress)]) is None
    assert reason(watched.overdue(1160.1, FakeWorker(), [Running(3, 2)])) == "it made no step for 60 s (--stall)"


def test_a_child_that_takes_too_long_though_it_makes_steps():
    watched = monitor(timeout=90.0)
    for now in range(1000, 1091, 10):
        assert watched.overdue(now, FakeWorker(), [Running(3, now)]) is None
    assert reason(watched.overdue(1091.0, FakeWorker(), [Running(3, 5)])) == "it took more than 90 s (--child-timeout)"


def test_the_next_child_has_as_long():
    watched = monitor(timeout=90.0, stall=1e9)
    assert watched.overdue(1000.0, FakeWorker(), [Running(3)]) is None
    watched.delivered(1080.0)
    assert watched.overdue(1085.0, FakeWorker(), [Running(4)]) is None
    assert watched.overdue(1170.0, FakeWorker(), [Running(4)]) is None
    assert watched.overdue(1176.0, FakeWorker(), [Running(4)]) is not None


def test_a_population_has_as_long_as_its_children_one_by_one():
    watched = monitor(timeout=90.0, stall=1e9)
    assert watched.overdue(1000.0, FakeWorker(), [Running(3), Running(4)]) is None
    assert watched.overdue(1180.0, FakeWorker(), [Running(3)]) is None  # one of them is over
    late = watched.overdue(1181.0, FakeWorker(), [Running(3)])
    assert reason(late) == "it took more than 180 s (--child-timeout)"


@pytest.mark.parametrize("delivered", [True, False])
def test_a_worker_whose_child_is_another_s_by_now(delivered):
    watched = monitor()
    watched.ready(1000.0)
    watched.overdue(1000.0, FakeWorker(), [Running(3)])
    if delivered:
        watched.delivered(1001.0)
    late = watched.overdue(1062.0, FakeWorker(), [])
    assert reason(late) == (None if delivered else "it did not come back from child 3 (--stall)")


def test_memory_is_looked_at_once_a_second_and_shared_memory_only_near_the_limit():
    watched = monitor(memory=2 * GIBI)
    worker = FakeWorker(resident=GIBI)
    for now in (1000.0, 1000.9, 1001.0, 1001.5, 1002.0):
        assert watched.overdue(now, worker, []) is None
    assert worker.looks == [False, False]
    worker = FakeWorker(resident=3 * GIBI, shared_once=GIBI)
    assert watched.overdue(1003.0, worker, []) is None and worker.looks == [False, True]
    late = watched.overdue(1004.0, FakeWorker(resident=4 * GIBI, shared_once=3 * GIBI), [])
    assert late == Overdue(Fault.OOM, "its worker held 3.00 GB where 2.00 are allowed (--worker-memory)")


def test_nobody_looks_at_memory_without_a_limit():
    worker = FakeWorker(resident=2**60)
    assert monitor().overdue(1010.0, worker, []) is None and worker.looks == []
