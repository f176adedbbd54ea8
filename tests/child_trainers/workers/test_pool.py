"""A pool of real processes, on a user's task that imports no TensorFlow."""

import contextlib
import gc
import os
import re
import signal
import sys
import time

import pytest
from waiting import SECONDS, ended, watched

from automl import child_trainers, db
from automl.child_trainers.artefacts import FolderArtefacts
from automl.child_trainers.gpu_faults import GpuLostError
from automl.child_trainers.workers import local_pool
from automl.child_trainers.workers.local_pool import RENEW_SECONDS, LocalPool
from automl.child_trainers.workers.monitor import Deadlines
from automl.child_trainers.workers.pool import InlinePool, PoolError, PoolSetup
from automl.child_trainers.workers.process import ROOT, WorkerProcess
from automl.child_trainers.workers.serve import STORE_LOST_EXIT
from automl.db.records import FINAL, Fault, State
from automl.search_spaces.decisions import Choice

MEBI = 2**20
DEEDS = (
    "well",
    "raise",
    "exit",
    "quit",
    "kill",
    "segfault",
    "hang",
    "hold",
    "grandchild",
    "fork",
    "copies",
    "waits",
    "once",
    "store",
    "tell",
    "keep",
    "hoard",
    "hoarders",
    "gpu-lost",
    "gpu-abort",
    "gpu-once",
)
FILE = f"""
import contextlib, ctypes, os, resource, signal, subprocess, sys, threading
from pathlib import Path
from automl.search_spaces.decisions import Choice

kept = []

def space():
    return (yield Choice("deed", {DEEDS!r}))

def task(spec, report):
    report(1, pid=os.getpid())
    print("doing", spec, flush=True)
    if spec == "raise":
        raise ValueError("on purpose")
    if spec == "exit":
        os._exit(3)
    if spec == "quit":
        os._exit(0)
    if spec == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if spec == "segfault":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
    if spec == "hang":
        threading.Event().wait()
    if spec == "hold":
        ctypes.PyDLL(None).pause()  # and keeps Python's lock: no thread of this process can run
    if spec == "grandchild":
        child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        report(2, grandchild=child.pid)
        os.read(os.open(Path(__file__).with_name("go"), os.O_RDONLY), 1)
        os._exit(4)
    if spec == "fork":
        copy = os.fork()
        if copy == 0:
            threading.Event().wait()
        report(2, copy=copy)
    if spec == "copies":
        os.fork()
    if spec == "waits":
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
    if spec == "keep":
        kept.append(b"x" * {64 * MEBI})
    if spec == "hoard":
        kept.append(b"x" * {300 * MEBI})
        report(2, hoards=True)
        threading.Event().wait()
    if spec == "hoarders":
        hoard = "held = b'x' * {150 * MEBI}; print(flush=True); import threading; threading.Event().wait()"
        hoarders = [subprocess.Popen([sys.executable, "-c", hoard], stdout=subprocess.PIPE) for _ in range(2)]
        for hoarder in hoarders:
            hoarder.stdout.readline()
        report(2, hoards=True, grandchild=hoarders[0].pid)
        threading.Event().wait()
    if spec == "once":
        mark = Path(__file__).with_name("mark")
        if not mark.exists():
            mark.touch()
            os._exit(5)
    if spec == "gpu-lost":
        raise RuntimeError("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")
    if spec == "gpu-abort":
        print("F cuda_event.cc:29] Failed: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure", flush=True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()
    if spec == "gpu-once":
        mark = Path(__file__).with_name("mark")
        if not mark.exists():
            mark.touch()
            raise RuntimeError("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered")
    if spec == "store":
        os._exit({STORE_LOST_EXIT})
    metrics = {{"reward": 1.0, "pid": os.getpid()}}
    if spec == "tell":
        from automl import child_trainers, db
        metrics["ours"] = [child_trainers.__file__, db.__file__]
        metrics["cmdline"] = Path("/proc/self/cmdline").read_text()
        metrics["environ"] = Path("/proc/self/environ").read_text()
        metrics["slow"] = sorted({{"tensorflow", "keras", "alembic", "sklearn"}} & set(sys.modules))
        metrics["cwd"] = os.getcwd()
    return metrics
"""

FOR_EVER = Deadlines(stall=1e9)


def space():
    return (yield Choice("deed", DEEDS))


@pytest.fixture
def new_pool(new_search, settings_of, order_of, tmp_path):
    """A search whose children do the given deeds, and a pool that runs it."""
    pools = []
    file = tmp_path / "mine.py"

    def make(
        *deeds,
        text=FILE,
        count=1,
        deadlines=FOR_EVER,
        budget=None,
        recycling=None,
        clock=time.monotonic,
        gpus=(),
        notices=(),
        before=lambda: None,
    ):
        file.write_text(text)
        settings = settings_of(space=f"{file}:space", task=f"{file}:task")
        search = new_search([(DEEDS.index(deed),) for deed in deeds], space=space, settings=settings, budget=budget)
        before()
        changes = {} if recycling is None else {f"recycle_{what}": most for what, most in recycling.items()}
        order = order_of(search, **changes)
        artefacts = FolderArtefacts(tmp_path / "logs")
        setup = PoolSetup(search.store, order, None, artefacts, deadlines, count, gpus, notices=notices)
        pool = LocalPool(setup, clock=clock)
        pools.append(pool)
        return search, pool

    yield make
    for pool in pools:
        with contextlib.suppress(OSError):
            pool.close()


def run(pool, until):
    """The loop of a coordinator with nothing else to do."""
    end = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < end, "the pool did not come to it"
        if not pool.tend():
            pool.wait(0.05)


def run_all(search, pool):
    run(pool, lambda: all(child.state in FINAL for child in search.store.children(search.id)))


def measured(search, number, name):
    """A metric that a running child has reported, or None."""
    found = [row.metrics[name] for row in search.store.measurements(search.child(number).id) if name in row.metrics]
    return found[0] if found else None


def reported(search, number, name="pid"):
    return lambda: search.child(number).state == State.RUNNING and measured(search, number, name) is not None


def test_children_end_as_they_do_and_none_harms_another(new_pool):
    search, pool = new_pool("well", "raise", "exit", "quit", "kill", "segfault", "well", "well", count=2)
    run_all(search, pool)
    children = search.store.children(search.id)
    assert [child.state for child in children] == [
        State.TRAINED,
        *[State.FAILED] * 5,
        State.TRAINED,
        State.TRAINED,
    ]
    assert [child.fault for child in children] == [
        None,
        Fault.RAISED,
        *[Fault.CRASHED] * 4,
        None,
        None,
    ]
    assert [child.message for child in children[1:6]] == [
        "ValueError: on purpose",
        "its worker ended (exit code 3)",
        "its worker ended (exit code 0)",
        "its worker ended (signal SIGKILL)",
        "its worker ended (signal SIGSEGV)",
    ]
    endings = {number: [(a.exit_code, a.signal) for a in search.attempts(number)] for number in range(8)}
    assert endings == {
        0: [(None, None)],
        1: [(None, None)],
        2: [(3, None)] * 2,  # what crashes is tried once more
        3: [(0, None)] * 2,
        4: [(None, signal.SIGKILL)] * 2,
        5: [(None, signal.SIGSEGV)] * 2,
        6: [(None, None)],
        7: [(None, None)],
    }
    for number, deed in ((2, "exit"), (3, "quit"), (4, "kill"), (5, "segfault")):
        assert all(f"doing {deed}" in attempt.log for attempt in search.attempts(number))
    # A worker bears its coordinator's epoch, its slot, and how many were there before it.
    workers = {attempt.worker for number in range(8) for attempt in search.attempts(number)}
    assert workers <= {f"{search.lease.epoch}.{slot}.{generation}" for slot in (0, 1) for generation in range(1, 10)}
    assert pool.notes == []  # a child's end is not held against its worker


def test_every_child_has_a_log_of_its_own(new_pool):
    search, pool = new_pool("well", "raise", "exit")
    run_all(search, pool)
    trained, raised, *crashed = [attempt.log for number in range(3) for attempt in search.attempts(number)]
    assert trained == "doing well\n"
    assert raised.startswith("doing raise\n") and raised.endswith("ValueError: on purpose\n")
    assert crashed == ["doing exit\n"] * 2


def test_what_crashed_once_may_still_be_trained(new_pool):
    search, pool = new_pool("once")
    run_all(search, pool)
    child = search.child(0)
    assert (child.state, child.reward, child.fault, child.attempts) == (State.TRAINED, 1.0, None, 2)
    assert [(attempt.fault, attempt.exit_code) for attempt in search.attempts(0)] == [(Fault.CRASHED, 5), (None, None)]


def test_a_lost_store_is_the_machine_s_fault(new_pool):
    search, pool = new_pool("store")
    run_all(search, pool)
    assert (search.child(0).state, search.child(0).fault) == (State.LOST, Fault.STORE_LOST)
    assert len(search.attempts(0)) == 5


@pytest.mark.parametrize(
    ("deed", "deadlines", "seconds", "message"),
    [
        ("hang", Deadlines(stall=60.0), 60, "it made no step for 60 s (--stall)"),
        ("hold", Deadlines(stall=60.0), 60, "it made no step for 60 s (--stall)"),
        ("hang", Deadlines(stall=1e9, timeout=90.0), 90, "it took more than 90 s (--child-timeout)"),
    ],
)
def test_a_child_that_hangs_is_ended(new_pool, clock, deed, deadlines, seconds, message):
    search, pool = new_pool(deed, "well", "well", count=2, clock=clock, deadlines=deadlines)
    run(pool, lambda: search.store.counts(search.id)[State.TRAINED] == 2)
    run(pool, reported(search, 0))
    pid = measured(search, 0, "pid")
    pool.tend()
    clock.now += seconds
    pool.tend()
    assert search.child(0).state == State.RUNNING
    clock.now += 1
    assert pool.tend()  # there is news
    child = search.child(0)
    assert (child.state, child.fault, child.message) == (State.FAILED, Fault.TIMEOUT, message)
    (attempt,) = search.attempts(0)
    assert (attempt.fault, attempt.charged) == (Fault.TIMEOUT, True) and f"doing {deed}" in attempt.log
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_that_makes_steps_does_not_stall(new_pool, clock):
    search, pool = new_pool("hang", clock=clock, deadlines=Deadlines(stall=60.0))
    run(pool, reported(search, 0))
    (claim,) = search.store.claims_of(search.id, search.child(0).worker)
    for progress in range(1, 5):
        search.store.renew(claim, progress)
        pool.tend()
        clock.now += 50
        pool.tend()
    assert search.child(0).state == State.RUNNING
    clock.now += 11
    pool.tend()
    assert search.child(0).state == State.FAILED


def test_a_child_that_keeps_its_worker_from_renewing_stays_its_own(new_pool, clock):
    search, pool = new_pool("hold", clock=clock)
    run(pool, reported(search, 0))
    before = search.child(0).lease_until
    clock.now += RENEW_SECONDS
    pool.tend()
    assert search.child(0).lease_until > before


def test_a_worker_that_does_not_come_back_from_a_lost_child_is_ended(new_pool, clock):
    search, pool = new_pool("hold", clock=clock, deadlines=Deadlines(stall=60.0))
    run(pool, reported(search, 0))
    pool.tend()
    (claim,) = search.store.claims_of(search.id, search.child(0).worker)
    pid = measured(search, 0, "pid")
    search.store.fail_attempt(claim, Fault.NODE_LOST)
    assert search.store.claim(search.id, "another's", "cpu")
    with watched(pid) as sentinel:
        clock.now += 61
        pool.tend()
        assert ended(sentinel)
    assert search.child(0).worker == "another's"


def test_a_slot_goes_on_after_its_worker_was_ended(new_pool, clock):
    search, pool = new_pool("hang", "well", clock=clock, deadlines=Deadlines(stall=60.0))
    run(pool, reported(search, 0))
    pool.tend()
    clock.now += 61
    run_all(search, pool)
    assert [child.state for child in search.store.children(search.id)] == [State.FAILED, State.TRAINED]
    assert search.child(1).worker == f"{search.lease.epoch}.0.2"


@pytest.mark.parametrize("deed", ["hoard", "hoarders"])
def test_a_child_that_holds_too_much_memory_is_ended(new_pool, clock, deed):
    """300 MB, by itself or by what it starts; the other worker goes on."""
    search, pool = new_pool("hang", deed, count=2, clock=clock, deadlines=Deadlines(stall=1e9, memory=250 * MEBI))
    run(pool, lambda: reported(search, 0)() and reported(search, 1, "hoards")())
    pid, other = measured(search, 1, "pid"), search.child(0).worker
    clock.now += 0.9
    pool.tend()
    assert search.child(1).state == State.RUNNING  # memory is looked at once a second
    clock.now += 0.1
    assert pool.tend()
    child = search.child(1)
    assert (child.state, child.fault) == (State.FAILED, Fault.OOM)
    assert re.fullmatch(r"its worker held 0\.[3-5]\d GB where 0\.24 are allowed \(--worker-memory\)", child.message)
    (attempt,) = search.attempts(1)
    assert (attempt.fault, attempt.charged) == (Fault.OOM, True) and f"doing {deed}" in attempt.log
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    clock.now += 1
    pool.tend()
    assert (search.child(0).state, search.child(0).worker) == (State.RUNNING, other)
    assert pool.notes == []


def test_a_worker_that_holds_too_much_memory_without_a_child_is_not_used(new_pool, clock):
    search, pool = new_pool("keep", clock=clock, deadlines=Deadlines(stall=1e9, memory=MEBI))

    def a_second_later():
        clock.now += 1
        return False

    with pytest.raises(PoolError, match=r"No worker can be used: its worker held .* \(--worker-memory\); its log is "):
        run(pool, a_second_later)  # a process that has only just begun holds next to nothing
    assert search.child(0).state == State.READY


def test_nobody_looks_at_memory_where_there_is_no_limit(new_pool, clock, monkeypatch):
    monkeypatch.setattr(WorkerProcess, "resident_bytes", lambda process: pytest.fail("it looked"))
    _, pool = new_pool("well", clock=clock)
    clock.now += 10
    pool.tend()


def test_what_a_dead_worker_s_child_started_is_ended_too(new_pool, tmp_path):
    os.mkfifo(tmp_path / "go")
    search, pool = new_pool("grandchild")
    for attempt in (1, 2):
        run(pool, lambda attempt=attempt: len(search.attempts(0)) == attempt and reported(search, 0, "grandchild")())
        with watched(measured(search, 0, "grandchild")) as grandchild:
            assert not ended(grandchild, 0)
            (tmp_path / "go").write_text("!")
            run(pool, lambda: ended(grandchild, 0))
    run_all(search, pool)
    assert [(attempt.fault, attempt.exit_code) for attempt in search.attempts(0)] == [(Fault.CRASHED, 4)] * 2


def test_a_child_that_forks_itself(new_pool):
    """The copy stays in its worker's group: it may outlive the child, and ends with the worker."""
    search, pool = new_pool("fork", "well")
    run_all(search, pool)
    assert [child.state for child in search.store.children(search.id)] == [State.TRAINED] * 2
    assert search.child(0).metrics["pid"] == search.child(1).metrics["pid"]
    with watched(measured(search, 0, "copy")) as copy:
        assert not ended(copy, 0)
        pool.close()
        assert ended(copy)


def test_close_ends_everything_at_once_and_leaves_children_running(new_pool, tmp_path):
    os.mkfifo(tmp_path / "go")
    search, pool = new_pool("grandchild", "hang", "hold", "well", count=4)
    run(pool, lambda: search.store.counts(search.id)[State.TRAINED] == 1)
    run(pool, lambda: reported(search, 0, "grandchild")() and reported(search, 1)() and reported(search, 2)())
    pids = [measured(search, number, "pid") for number in range(3)] + [search.child(3).metrics["pid"]]
    with watched(measured(search, 0, "grandchild")) as grandchild:
        pool.close()
        for pid in pids:  # not even a zombie is left
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        assert ended(grandchild)
    assert [child.state for child in search.store.children(search.id)] == [*[State.RUNNING] * 3, State.TRAINED]


def test_no_file_descriptor_is_left(new_pool):
    open_before = []
    search, pool = new_pool(
        "exit", "well", "kill", count=2, before=lambda: open_before.append(len(os.listdir("/proc/self/fd")))
    )
    run_all(search, pool)
    pool.close()
    gc.collect()  # what is forgotten would warn here, and warnings are errors
    # One more: the store's connection, which is opened on first use.
    assert len(os.listdir("/proc/self/fd")) <= open_before[0] + 1


BROKEN = FILE + "\n1 / 0\n"
BROKEN_WITH_A_THREAD = FILE + "\nthreading.Thread(target=threading.Event().wait).start()\n1 / 0\n"


@pytest.mark.parametrize("text", [BROKEN, BROKEN_WITH_A_THREAD], ids=["plain", "thread"])
def test_workers_that_cannot_start_end_the_search_with_the_log_s_name(new_pool, tmp_path, text):
    search, pool = new_pool("well", text=text)
    with pytest.raises(PoolError) as caught:
        run(pool, lambda: False)
    log = tmp_path / "logs" / "worker-0.log"
    reason = f"its workers end without a child (exit code 1); their log is {log}"
    assert str(caught.value) == f"No worker can be used: {reason}."
    assert pool.notes == [f"Worker 0 is out of use: {reason}"]
    assert log.read_text().count("ZeroDivisionError: division by zero") == 2
    assert search.child(0).state == State.READY


def test_one_that_ends_before_it_is_ready_is_broken_whatever_it_says(new_pool, tmp_path):
    _, pool = new_pool("well", text=FILE + "\nos._exit(0)\n")
    with pytest.raises(PoolError, match=r"its workers end without a child \(exit code 0\)"):
        run(pool, lambda: False)


BROKEN_ON_ONE = FILE + "\nif os.environ['CUDA_VISIBLE_DEVICES'] == 'broken': 1 / 0\n"


def test_a_broken_slot_is_left_empty_and_the_others_go_on(new_pool, tmp_path):
    search, pool = new_pool(*["well"] * 5, text=BROKEN_ON_ONE, count=2, gpus=["whole", "broken"], budget=1)
    run(pool, lambda: pool.notes)
    log = tmp_path / "logs" / "worker-1.log"
    assert pool.notes == [f"Worker 1 is out of use: its workers end without a child (exit code 1); their log is {log}"]
    search.store.set_budget(search.lease, 5)
    pool.wake()
    run_all(search, pool)
    assert {child.worker for child in search.store.children(search.id)} == {f"{search.lease.epoch}.0.1"}
    assert log.read_text().count("ZeroDivisionError: division by zero") == 2
    pool.wait(0)
    assert [slot.process is None for slot in pool._slots] == [False, True]


def test_the_pool_gives_up_once_no_slot_is_left(new_pool):
    _, pool = new_pool("well", text=BROKEN_ON_ONE, count=3, gpus=["broken"])
    with pytest.raises(PoolError, match="No worker can be used: its workers end without a child"):
        run(pool, lambda: False)
    assert [note.partition(":")[0] for note in pool.notes] == [f"Worker {slot} is out of use" for slot in range(3)]


def test_workers_that_are_never_ready_are_ended(new_pool, tmp_path, clock):
    text = FILE + "\nthreading.Event().wait()\n"
    search, pool = new_pool("well", text=text, clock=clock, deadlines=Deadlines(stall=60.0))
    first = pool._slots[0].process
    clock.now += 60
    pool.tend()
    assert pool._slots[0].process is first
    clock.now += 1
    assert pool.tend()
    assert first.signal == signal.SIGKILL and pool._slots[0].generation == 2
    clock.now += 60
    pool.tend()  # the next one has as long
    clock.now += 1
    with pytest.raises(PoolError) as caught:
        pool.tend()
    log = tmp_path / "logs" / "worker-0.log"
    assert str(caught.value) == f"No worker can be used: it was not ready after 60 s (--stall); its log is {log}."
    assert search.child(0).state == State.READY


def test_a_worker_that_is_ready_may_idle_for_ever(new_pool, clock):
    search, pool = new_pool("well", clock=clock, deadlines=Deadlines(stall=60.0, timeout=60.0))
    run_all(search, pool)
    for _ in range(3):  # the first may still bring news of the child
        clock.now += 1e6
        pool.tend()
    assert pool._slots[0].generation == 1


def test_a_worker_that_ends_between_children_is_replaced(new_pool):
    search, pool = new_pool("well")
    run_all(search, pool)
    os.kill(search.child(0).metrics["pid"], signal.SIGKILL)
    pool.wait(SECONDS)  # returns at once: a worker's end is news
    # No child is charged for it.
    run(pool, lambda: pool._slots[0].generation == 2)
    assert search.child(0).state == State.TRAINED and len(search.attempts(0)) == 1


def test_a_delivered_child_makes_up_for_a_worker_that_ended(new_pool):
    search, pool = new_pool("well", "well", "well", budget=1)
    for number in range(3):
        run(pool, lambda number=number: search.child(number).state == State.TRAINED)
        os.kill(search.child(number).metrics["pid"], signal.SIGKILL)
        run(pool, lambda number=number: pool._slots[0].generation == number + 2)
        search.store.set_budget(search.lease, number + 2)
    assert pool.notes == []


def test_two_workers_that_end_in_a_row_without_a_child_are_too_many(new_pool):
    search, pool = new_pool("well")
    run_all(search, pool)
    os.kill(search.child(0).metrics["pid"], signal.SIGKILL)
    run(pool, lambda: pool._slots[0].generation == 2 and pool._slots[0].monitor.is_ready)
    os.kill(pool._slots[0].process.pid, signal.SIGKILL)
    with pytest.raises(PoolError, match=r"its workers end without a child \(signal SIGKILL\)"):
        run(pool, lambda: False)


def test_a_worker_that_makes_room_is_not_blamed(new_pool):
    _, pool = new_pool("well", recycling={"after": 1, "growth": 2**40})
    run(pool, lambda: pool._slots[0].generation == 2)
    assert pool._slots[0].failures == 0


@pytest.mark.parametrize(
    ("recycling", "deeds", "generations"),
    [
        ({"after": 1, "growth": 2**40}, ["well"] * 3, [1, 2, 3]),
        ({"after": 2, "growth": 2**40}, ["well", "raise", "well", "well"], [1, 1, 2, 2]),
        ({"after": 1000, "growth": 40 * MEBI}, ["well", "well", "keep", "well", "keep", "well"], [1, 1, 1, 2, 2, 3]),
    ],
)
def test_workers_make_room_for_fresh_ones(new_pool, recycling, deeds, generations):
    search, pool = new_pool(*deeds, recycling=recycling)
    run_all(search, pool)
    (attempts,) = zip(*(search.attempts(number) for number in range(len(deeds))), strict=True)
    assert [attempt.worker for attempt in attempts] == [f"{search.lease.epoch}.0.{number}" for number in generations]
    assert [child.state == State.TRAINED for child in search.store.children(search.id)] == [
        deed != "raise" for deed in deeds
    ]
    assert pool.notes == []


def test_a_pool_that_cannot_start_all_workers_ends_those_that_it_started(new_pool, monkeypatch):
    started = []

    def start(*arguments, **keywords):
        if len(started) == 2:
            raise OSError("no more processes")
        started.append(WorkerProcess(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(local_pool, "WorkerProcess", start)
    with pytest.raises(OSError, match="no more processes"):
        new_pool("well", count=3)
    assert len(started) == 2 and all(process.signal == signal.SIGKILL for process in started)


def test_a_person_may_remove_the_logs(new_pool, tmp_path):
    search, pool = new_pool("hang", "well")
    run(pool, reported(search, 0))
    (tmp_path / "logs" / "worker-0.log").unlink()
    os.kill(measured(search, 0, "pid"), signal.SIGKILL)
    run(pool, lambda: len(search.attempts(0)) == 2)
    assert search.attempts(0)[0].log == ""


def test_gpus_are_dealt_in_turn_and_named(new_pool):
    search, pool = new_pool("tell", "tell", "tell", "tell", gpus=["0", "GPU-b"], count=2)
    run_all(search, pool)
    for child in search.store.children(search.id):
        (attempt,) = search.attempts(child.number)
        gpu = ("0", "GPU-b")[attempt.slot]
        assert attempt.device == f"gpu {gpu}"
        assert f"CUDA_VISIBLE_DEVICES={gpu}\0" in child.metrics["environ"]


def test_a_child_whose_gpu_was_lost_is_trained_by_the_next_worker(new_pool):
    """Faults that alternate with trained children leave the slot in use."""
    search, pool = new_pool("gpu-once", "well", gpus=["0"])
    run_all(search, pool)
    lost, again = search.attempts(0)
    assert (lost.fault, lost.charged, again.fault) == (Fault.NODE_LOST, True, None)
    assert (search.child(0).state, search.child(0).reward) == (State.TRAINED, 1.0)
    assert again.worker == f"{search.lease.epoch}.0.2" and pool.notes == []


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("gpu-lost", "RuntimeError: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"),
        ("gpu-abort", "F cuda_event.cc:29] Failed: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"),
    ],
)
def test_a_gpu_that_is_lost_twice_in_a_row_is_not_used(new_pool, tmp_path, deed, told):
    search, pool = new_pool(deed, gpus=["0"])
    with pytest.raises(PoolError) as caught:
        run(pool, lambda: False)
    reason = (
        f"its workers lose their GPU (gpu 0: {told}); see automl doctor, and their log {tmp_path}/logs/worker-0.log"
    )
    assert str(caught.value) == f"No worker can be used: {reason}."
    assert [(attempt.fault, attempt.charged) for attempt in search.attempts(0)] == [(Fault.NODE_LOST, True)] * 2
    assert search.child(0).state == State.READY  # for another machine
    assert pool.notes == [f"Worker 0 is out of use: {reason}"]


def test_a_slot_without_its_gpu_is_left_empty_and_the_others_go_on(new_pool):
    search, pool = new_pool("hang", "gpu-lost", "well", count=2, gpus=["0", "1"], budget=2)
    run(pool, lambda: len(pool.notes) == 1)
    (note,) = pool.notes
    slot = next(slot for slot in pool._slots if slot.quarantined is not None)
    assert note.startswith(f"Worker {slot.index} is out of use: its workers lose their GPU (gpu {slot.index}: ")
    assert search.child(0).state == State.RUNNING


def test_a_crash_without_a_gpu_is_the_child_s(new_pool):
    search, pool = new_pool("gpu-abort")
    run_all(search, pool)
    assert (search.child(0).state, search.child(0).fault) == (State.FAILED, Fault.CRASHED)


def test_notices_about_devices_are_the_pool_s(new_pool):
    _, pool = new_pool("well", notices=["The GPU is busy."])
    assert pool.notes == ["The GPU is busy."]


def test_a_lost_gpu_of_this_process_pauses_the_search():
    class FakeWorker:
        def work_once(self):
            raise GpuLostError("CUDA_ERROR_NO_DEVICE")

    with pytest.raises(PoolError, match=r"The GPU of this process is lost \(CUDA_ERROR_NO_DEVICE\)\."):
        InlinePool(FakeWorker()).tend()


def test_a_worker_is_ours_wherever_the_search_is_started(new_pool, tmp_path, monkeypatch):
    stranger = tmp_path / "elsewhere"
    for package in ("automl", "child_trainers", "db", "search_spaces"):
        (stranger / package).mkdir(parents=True)
        (stranger / package / "__init__.py").write_text("raise RuntimeError('a stranger')")
    monkeypatch.chdir(stranger)
    monkeypatch.setenv("PYTHONPATH", str(stranger))
    search, pool = new_pool("tell")
    run_all(search, pool)
    metrics = search.child(0).metrics
    assert metrics["ours"] == [child_trainers.__file__, db.__file__]
    assert metrics["cwd"] == str(stranger)


def test_other_users_cannot_read_the_store_s_address(new_pool):
    search, pool = new_pool("tell")
    run_all(search, pool)
    metrics = search.child(0).metrics
    assert metrics["cmdline"].rstrip("\0").split("\0")[::4] == [sys.executable, ROOT]
    assert search.store.address not in metrics["cmdline"] + metrics["environ"]


def test_a_worker_imports_nothing_slow_for_a_task_that_needs_none_of_it(new_pool):
    search, pool = new_pool("tell")
    run_all(search, pool)
    assert search.child(0).metrics["slow"] == []


def test_a_wake_reaches_idle_workers(new_pool):
    search, pool = new_pool("well", count=2)
    run_all(search, pool)
    pool.wake()
    assert not [slot for slot in pool._slots if slot.process.poll()]


def test_an_inline_pool_trains_one_child_a_call():
    class FakeWorker:
        left = 2

        def work_once(self):
            self.left -= 1
            return self.left >= 0

    pool = InlinePool(FakeWorker())
    pool.wake()
    assert [pool.tend(), pool.tend(), pool.tend()] == [True, True, False]
    pool.wait(3600.0)  # there is nothing that it could wait for
    pool.close()
    assert pool.notes == []


def test_a_copy_of_a_worker_trains_nothing(new_pool):
    search, pool = new_pool("copies", *["well"] * 10)
    run_all(search, pool)
    pids = [child.metrics["pid"] for child in search.store.children(search.id)]
    assert pids[1:] == [pool._slots[0].process.pid] * 10


def test_a_child_that_waits_for_all_that_it_started(new_pool):
    """The guard is none of it."""
    search, pool = new_pool("waits")
    run_all(search, pool)
    assert search.child(0).state == State.TRAINED
