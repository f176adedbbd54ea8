"""A pool of real processes, on a person's task that imports no TensorFlow."""

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

import child_trainers
from child_trainers import pool as pool_module
from child_trainers.pool import InlinePool, LocalPool, PoolError
from child_trainers.process import ROOT, WorkerProcess
from child_trainers.worker import STORE_LOST_EXIT
from db.records import FINAL, Fault, State

SECONDS = 60.0  # how long a test waits for what should take far less than one
DEEDS = ("well", "raise", "exit", "kill", "segfault", "hang", "hold", "grandchild", "once", "store", "tell")
FILE = f"""
import ctypes, os, resource, signal, subprocess, sys, threading
from pathlib import Path
from search_spaces.decisions import Choice

def space():
    return (yield Choice("deed", {DEEDS!r}))

def task(spec, report):
    report(1, pid=os.getpid())
    print("doing", spec, flush=True)
    if spec == "raise":
        raise ValueError("on purpose")
    if spec == "exit":
        os._exit(3)
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
    if spec == "once":
        mark = Path(__file__).with_name("mark")
        if not mark.exists():
            mark.touch()
            os._exit(5)
    if spec == "store":
        os._exit({STORE_LOST_EXIT})
    metrics = {{"reward": 1.0, "pid": os.getpid()}}
    if spec == "tell":
        import child_trainers, db
        metrics["ours"] = [child_trainers.__file__, db.__file__]
        metrics["cmdline"] = Path("/proc/self/cmdline").read_text()
        metrics["environ"] = Path("/proc/self/environ").read_text()
        metrics["slow"] = sorted({{"tensorflow", "keras", "alembic", "sklearn"}} & set(sys.modules))
        metrics["cwd"] = os.getcwd()
    return metrics
"""


@pytest.fixture
def new_pool(new_search, settings_of, tmp_path):
    """A search whose children do the given deeds, and a pool that runs it."""
    pools = []
    file = tmp_path / "mine.py"

    def make(*deeds, text=FILE, count=1, stall=1e9, timeout=None, clock=time.monotonic, gpus=(), before=lambda: None):
        file.write_text(text)
        settings = settings_of(space=f"{file}:space", task=f"{file}:task")
        search = new_search([(DEEDS.index(deed),) for deed in deeds], settings=settings)
        before()
        pool = LocalPool(
            search.store,
            order_of(search),
            count=count,
            gpus=gpus,
            log_dir=tmp_path / "logs",
            stall=stall,
            timeout=timeout,
            clock=clock,
        )
        pools.append(pool)
        return search, pool

    yield make
    for pool in pools:
        with contextlib.suppress(OSError):
            pool.close()


def order_of(search):
    return {
        "store": search.store.address,
        "search_id": search.id,
        "settings": search.settings,
        "epoch": search.lease.epoch,
        "keep": 0,
        "threads": 1,
    }


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


@contextlib.contextmanager
def watched(pid):
    """A file descriptor that can be read once the process has ended."""
    sentinel = os.pidfd_open(pid)
    try:
        yield sentinel
    finally:
        os.close(sentinel)


def ended(sentinel, seconds=SECONDS):
    return bool(select.select([sentinel], [], [], seconds)[0])


def test_children_end_as_they_do_and_none_harms_another(new_pool):
    search, pool = new_pool("well", "raise", "exit", "kill", "segfault", "well", "well", count=2)
    run_all(search, pool)
    children = search.store.children(search.id)
    assert [child.state for child in children] == [
        State.TRAINED,
        *[State.FAILED] * 4,
        State.TRAINED,
        State.TRAINED,
    ]
    assert [child.fault for child in children] == [
        None,
        Fault.RAISED,
        *[Fault.CRASHED] * 3,
        None,
        None,
    ]
    assert [child.message for child in children[1:5]] == [
        "ValueError: on purpose",
        "its worker ended (exit code 3)",
        "its worker ended (signal SIGKILL)",
        "its worker ended (signal SIGSEGV)",
    ]
    endings = {number: [(a.exit_code, a.signal) for a in search.attempts(number)] for number in range(7)}
    assert endings == {
        0: [(None, None)],
        1: [(None, None)],
        2: [(3, None)] * 2,  # what crashes is tried once more
        3: [(None, signal.SIGKILL)] * 2,
        4: [(None, signal.SIGSEGV)] * 2,
        5: [(None, None)],
        6: [(None, None)],
    }
    for number, deed in ((2, "exit"), (3, "kill"), (4, "segfault")):
        assert all(f"doing {deed}" in attempt.log for attempt in search.attempts(number))
    # A worker bears its coordinator's epoch, its slot, and how many were there before it.
    workers = {attempt.worker for number in range(7) for attempt in search.attempts(number)}
    assert workers <= {f"{search.lease.epoch}.{slot}.{generation}" for slot in (0, 1) for generation in range(1, 8)}


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
    ("deed", "limits", "message"),
    [
        ("hang", {"stall": 60.0}, "it made no step for 60 s (--stall)"),
        ("hold", {"stall": 60.0}, "it made no step for 60 s (--stall)"),
        ("hang", {"timeout": 90.0}, "it took more than 90 s (--child-timeout)"),
    ],
)
def test_a_child_that_hangs_is_ended(new_pool, clock, deed, limits, message):
    search, pool = new_pool(deed, "well", "well", count=2, clock=clock, **limits)
    run(pool, lambda: search.store.counts(search.id)[State.TRAINED] == 2)
    run(pool, reported(search, 0))
    pid = measured(search, 0, "pid")
    pool.tend()
    clock.now += next(iter(limits.values()))
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
    search, pool = new_pool("hang", clock=clock, stall=60.0)
    run(pool, reported(search, 0))
    claim = search.store.claim_of(search.id, search.child(0).worker)
    for progress in range(1, 5):
        search.store.renew(claim, progress)
        pool.tend()
        clock.now += 50
        pool.tend()
    assert search.child(0).state == State.RUNNING
    clock.now += 11
    pool.tend()
    assert search.child(0).state == State.FAILED


def test_a_slot_goes_on_after_its_worker_was_ended(new_pool, clock):
    search, pool = new_pool("hang", "well", clock=clock, stall=60.0)
    run(pool, reported(search, 0))
    pool.tend()
    clock.now += 61
    run_all(search, pool)
    assert [child.state for child in search.store.children(search.id)] == [State.FAILED, State.TRAINED]
    assert search.child(1).worker == f"{search.lease.epoch}.0.2"


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
    assert str(caught.value) == f"Workers end before they are ready (exit code 1); their log is {log}."
    assert log.read_text().count("ZeroDivisionError: division by zero") == 3
    assert search.child(0).state == State.READY


def test_a_worker_that_ends_between_children_is_replaced(new_pool):
    search, pool = new_pool("well")
    run_all(search, pool)
    os.kill(search.child(0).metrics["pid"], signal.SIGKILL)
    pool.wait(SECONDS)  # returns at once: a worker's end is news
    # No child is charged for it.
    run(pool, lambda: pool._slots[0].generation == 2)
    assert search.child(0).state == State.TRAINED and len(search.attempts(0)) == 1


def test_a_pool_that_cannot_start_all_workers_ends_those_that_it_started(new_pool, monkeypatch):
    started = []

    def start(*arguments, **keywords):
        if len(started) == 2:
            raise OSError("no more processes")
        started.append(WorkerProcess(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(pool_module, "WorkerProcess", start)
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
        gpu = ("0", "GPU-b")[int(child.worker.split(".")[1])]
        assert attempt.device == f"gpu {gpu}"
        assert f"CUDA_VISIBLE_DEVICES={gpu}\0" in child.metrics["environ"]


def test_a_worker_is_ours_wherever_the_search_is_started(new_pool, tmp_path, monkeypatch):
    stranger = tmp_path / "elsewhere"
    for package in ("child_trainers", "db", "search_spaces"):
        (stranger / package).mkdir(parents=True)
        (stranger / package / "__init__.py").write_text("raise RuntimeError('a stranger')")
    monkeypatch.chdir(stranger)
    monkeypatch.setenv("PYTHONPATH", str(stranger))
    search, pool = new_pool("tell")
    run_all(search, pool)
    metrics = search.child(0).metrics
    assert metrics["ours"] == [child_trainers.__file__, os.path.join(ROOT, "db", "__init__.py")]
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


COORDINATOR = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from child_trainers.pool import LocalPool
from db.records import State
from db.store import Store
order = json.loads(sys.stdin.readline())
store = Store(order["store"])
pool = LocalPool(store, order, count=2, gpus=[], log_dir=Path(sys.argv[2]), stall=1e9, timeout=None)
def pids():
    running = store.children(order["search_id"], states=[State.RUNNING])
    return [row.metrics["pid"] for child in running for row in store.measurements(child.id)]
while len(pids()) < 2:
    if not pool.tend():
        pool.wait(0.05)
print(json.dumps(pids()), flush=True)
while True:
    pool.wait(10)
"""


def test_workers_end_when_their_coordinator_is_killed(new_search, settings_of, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    settings = settings_of(space=f"{file}:space", task=f"{file}:task")
    search = new_search([(DEEDS.index(deed),) for deed in ("hang", "hold")], settings=settings)
    command = [sys.executable, "-P", "-c", COORDINATOR, ROOT, str(tmp_path / "logs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as coordinator:
        try:
            coordinator.stdin.write(json.dumps(order_of(search)) + "\n")
            coordinator.stdin.flush()
            first, second = json.loads(coordinator.stdout.readline())
            with watched(first) as hanging, watched(second) as holding:
                assert not ended(hanging, 0) and not ended(holding, 0)
                coordinator.kill()
                coordinator.wait(SECONDS)
                assert ended(hanging) and ended(holding)
        finally:
            coordinator.kill()
    assert search.store.counts(search.id)[State.RUNNING] == 2  # for the next coordinator to ready


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
