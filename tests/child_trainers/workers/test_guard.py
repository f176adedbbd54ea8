"""The guard beside each worker: what becomes of a worker's group when the coordinator dies without a word."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from waiting import SECONDS

from automl.child_trainers.workers.messages import encode
from automl.child_trainers.workers.process import ROOT
from automl.db.records import State
from automl.search_spaces.decisions import Choice

# A group of three: a worker that tells its pid and its child's, that child, and the guard.
WORKER = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.workers.guard import fork_guard
fork_guard(int(sys.argv[2]))
sleeper = subprocess.Popen(["sh", "-c", "trap '' INT TERM HUP; exec sleep 1000"], stdout=subprocess.DEVNULL)
print(sleeper.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def alive():
    """The reading end of a lifeline, and its writing end: tests close the latter as a coordinator's death would."""
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture
def below():
    """A file descriptor of the worker's below its lifeline."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def above(alive):
    """One above."""
    reading, writing = os.pipe()
    assert writing > alive[0]
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def worker(below, alive, above):
    """A guarded worker and the process that it started."""
    command = [sys.executable, "-P", "-c", WORKER, ROOT, str(alive[0])]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[below, alive[0], above],
        start_new_session=True,
        text=True,
    )
    try:
        yield process, int(process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextlib.contextmanager
def watched(*pids):
    """File descriptors that can be read once the processes have ended."""
    with contextlib.ExitStack() as stack:
        sentinels = []
        for pid in pids:
            sentinels.append(os.pidfd_open(pid))
            stack.callback(os.close, sentinels[-1])
        yield sentinels


def ended(sentinel, seconds=SECONDS):
    return bool(select.select([sentinel], [], [], seconds)[0])


def group(leader):
    """The living processes of a group; a zombie is none."""
    members = set()
    for entry in os.scandir("/proc"):
        with contextlib.suppress(ValueError, OSError, IndexError), open(f"{entry.path}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
            if int(fields[2]) == leader and fields[0] not in "ZX":
                members.add(int(entry.name))
    return members


def opened(pid):
    files = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed a moment ago
            files.add(os.readlink(entry.path))
    return files


def guard_of(process, sleeper):
    """The guard, once it stands: it holds nothing of the worker's, whose pipes end when the worker does."""
    (guard,) = group(process.pid) - {process.pid, sleeper}
    end = time.monotonic() + SECONDS
    while not (len(opened(guard)) == 2 and os.devnull in opened(guard)):  # and the lifeline
        assert time.monotonic() < end, f"it holds {opened(guard)}"
    return guard


def test_the_whole_group_ends_with_the_lifeline(worker, alive):
    process, sleeper = worker
    guard = guard_of(process, sleeper)
    with watched(process.pid, sleeper, guard) as sentinels:
        assert not any(ended(sentinel, 0) for sentinel in sentinels)
        os.close(alive[1])
        assert all(ended(sentinel) for sentinel in sentinels)
    assert process.wait(SECONDS) == -signal.SIGKILL


def test_what_an_ended_worker_left_running_ends_as_well(worker, alive):
    process, sleeper = worker
    with watched(sleeper, guard_of(process, sleeper)) as sentinels:
        process.kill()
        process.wait(SECONDS)
        assert not any(ended(sentinel, 0) for sentinel in sentinels)
        os.close(alive[1])
        assert all(ended(sentinel) for sentinel in sentinels)


def test_signals_to_the_group_leave_the_guard(worker, alive):
    process, sleeper = worker
    guard = guard_of(process, sleeper)
    with watched(guard, sleeper) as sentinels:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.killpg(process.pid, number)
        process.wait(SECONDS)
        os.close(alive[1])
        assert all(ended(sentinel) for sentinel in sentinels)  # the sleeper heeds none of the three


def test_the_guard_holds_nothing_of_the_worker(worker):
    process, sleeper = worker
    guard = guard_of(process, sleeper)
    with watched(guard) as (sentinel,):
        process.kill()
        assert process.stdout.read() == ""
        assert not ended(sentinel, 0)


TASK = """
import ctypes, os, subprocess
from automl.search_spaces.decisions import Choice

def space():
    return (yield Choice("deed", ("wait", "hold")))

def task(spec, report):
    sleeper = subprocess.Popen(["sleep", "1000"])
    report(1, pid=os.getpid(), sleeper=sleeper.pid)
    if spec == "hold":
        ctypes.PyDLL(None).pause()  # and keeps Python's lock: no thread of this process can run
    sleeper.wait()
"""
COORDINATOR = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from automl.child_trainers.artefacts import FolderArtefacts
from automl.child_trainers.workers.local_pool import LocalPool
from automl.child_trainers.workers.messages import decode
from automl.child_trainers.workers.monitor import Deadlines
from automl.child_trainers.workers.pool import PoolSetup
from automl.db.records import State
from automl.db.store import Store
order = decode(sys.stdin.readline())
store = Store(order.store)
pool = LocalPool(PoolSetup(store, order, None, FolderArtefacts(Path(sys.argv[2])), Deadlines(stall=1e9), count=2))
def told():
    running = store.children(order.search_id, states=[State.RUNNING])
    return [row.metrics for child in running for row in store.measurements(child.id)]
while len(told()) < 2:
    if not pool.tend():
        pool.wait(0.05)
print(json.dumps(told()), flush=True)
while True:
    pool.wait(10)
"""


def deeds():
    return (yield Choice("deed", ("wait", "hold")))


def test_a_killed_coordinator_leaves_neither_workers_nor_what_their_children_started(
    new_search, settings_of, order_of, tmp_path
):
    file = tmp_path / "mine.py"
    file.write_text(TASK)
    search = new_search([(0,), (1,)], space=deeds, settings=settings_of(space=f"{file}:space", task=f"{file}:task"))
    command = [sys.executable, "-P", "-c", COORDINATOR, ROOT, str(tmp_path / "logs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as coordinator:
        try:
            coordinator.stdin.write(encode(order_of(search)).decode())
            coordinator.stdin.flush()
            told = json.loads(coordinator.stdout.readline())
            groups = [group(row["pid"]) for row in told]
            for row, members in zip(told, groups, strict=True):
                assert {row["pid"], row["sleeper"]} < members and len(members) == 3
            with watched(*set().union(*groups)) as sentinels:
                assert not any(ended(sentinel, 0) for sentinel in sentinels)
                coordinator.kill()
                coordinator.wait(SECONDS)
                assert all(ended(sentinel) for sentinel in sentinels)
        finally:
            coordinator.kill()
    assert search.store.counts(search.id)[State.RUNNING] == 2  # for the next coordinator to ready
