"""Worker processes, with a few lines of Python in place of the worker's own."""

import dataclasses
import gc
import os
import select
import signal
import sys
import time

import pytest
from waiting import SECONDS

from automl.child_trainers.artefacts import LOG_TAIL, LogFile
from automl.child_trainers.workers import process
from automl.child_trainers.workers.messages import Wake, WorkerOrder, encode
from automl.child_trainers.workers.process import WorkerProcess, child_mark
from automl.child_trainers.workers.serve import own_resident_bytes

ORDER = WorkerOrder(
    store="store.db",
    search_id=1,
    settings={},
    epoch=1,
    keep=0,
    threads=1,
    early_stop="none",
    recycle_after=1,
    recycle_growth=1,
    gpu_memory=None,
    artefacts={},
    worker="1.0.1",
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a process that runs the given Python text."""
    started = []
    lifeline, alive = os.pipe()

    def start(text, **changes):
        monkeypatch.setattr(process, "START", text)
        order = dataclasses.replace(ORDER, **changes)
        log = LogFile(tmp_path / "worker-0.log", own=0)
        worker = WorkerProcess(order, log=log, environment={"GIVEN": "yes"}, lifeline=lifeline)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
    for end in (lifeline, alive):
        os.close(end)


def wait(worker):
    assert select.select([worker.sentinel], [], [], SECONDS)[0], "it did not end"
    assert worker.poll()


def wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come to it"


def test_exit_codes(start):
    worker = start("import sys; sys.exit(7)")
    wait(worker)
    assert (worker.exit_code, worker.signal, worker.ending) == (7, None, "exit code 7")


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGSEGV, "signal SIGSEGV"), (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1}")]
)
def test_signals(start, number, ending):
    worker = start(f"import os; os.kill(os.getpid(), {int(number)})")
    wait(worker)
    assert (worker.exit_code, worker.signal, worker.ending) == (None, number, ending)


def test_a_running_process_has_not_ended(start):
    worker = start("import sys; sys.stdin.read()")
    assert not worker.poll() and (worker.exit_code, worker.signal) == (None, None)
    worker.kill()
    assert worker.poll() and worker.signal == signal.SIGKILL


def test_the_order_comes_through_the_channel_and_then_what_wakes(start):
    changes = {"store": "postgresql://me:secret@host/db", "settings": {"text": "x" * 200_000}}
    worker = start("import sys; print(len(sys.stdin.readline()), sys.stdin.readline())", **changes)
    worker.channel.send(Wake())
    wait(worker)
    length = len(encode(dataclasses.replace(ORDER, **changes)))
    assert worker.log_tail() == f'{length} {{"message": "wake/1"}}\n\n'


def test_what_is_seen_from_outside(start):
    worker = start("import os, sys; os.write(1, os.environ['GIVEN'].encode()); sys.stdin.read()", store="secret")
    for file in ("cmdline", "environ"):
        with open(f"/proc/{worker.pid}/{file}", "rb") as opened:
            assert b"secret" not in opened.read()
    assert os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid != os.getsid(0)


def test_a_dead_process_can_be_woken_and_killed_again(start):
    worker = start("pass")
    wait(worker)
    for _ in range(3):
        worker.channel.send(Wake())
    worker.kill()
    worker.kill()
    worker.channel.send(Wake())
    assert worker.exit_code == 0


def test_log_tail_is_of_this_process_and_cut(start):
    first = start("print('first')")
    wait(first)
    assert first.log_tail() == "first\n"
    second = start(f"print('x' * {2 * LOG_TAIL} + 'end')")
    wait(second)
    assert second.log_tail() == "x" * (LOG_TAIL - 4) + "end\n"
    third = start("import sys; print('third', file=sys.stderr)")
    wait(third)
    assert third.log_tail() == "third\n"


def test_log_tail_of_a_child(start):
    lines = ["starts", child_mark(1), "first", child_mark(11), "eleventh", child_mark(1), "again"]
    worker = start("\n".join(f"print({line!r})" for line in lines))
    wait(worker)
    assert worker.log_tail(1) == "again\n"
    assert worker.log_tail(11) == f"eleventh\n{child_mark(1)}\nagain\n"
    assert worker.log_tail(2) == worker.log_tail()  # its mark was cut off


def test_log_tail_survives_cut_characters_and_a_removed_file(start):
    worker = start(f"import sys; sys.stdout.buffer.write('é'.encode() * {LOG_TAIL} + b'!')")
    wait(worker)
    assert worker.log_tail().endswith("é!")
    worker.log.path.unlink()
    assert worker.log_tail() == ""


def test_killing_ends_the_whole_group(start):
    worker = start(
        "import subprocess, sys\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import threading; threading.Event().wait()'])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.readline(); sys.stdin.readline()\n"
    )
    while not (tail := worker.log_tail()).endswith("\n"):
        assert not worker.poll()
    grandchild = os.pidfd_open(int(tail))
    try:
        worker.channel.send(Wake())  # its parent ends by itself, and leaves it running
        wait(worker)
        assert not select.select([grandchild], [], [], 0)[0]
        worker.kill()
        assert select.select([grandchild], [], [], SECONDS)[0]
    finally:
        os.close(grandchild)


HELD = 50 * 2**20


@pytest.mark.parametrize("whose", ["its own", "its child's"])
def test_memory_is_that_of_the_whole_group(start, whose):
    hold = f"held = b'x' * {HELD}; print('holds', flush=True); sys.stdin.read()"
    in_child = f"import subprocess; subprocess.run([sys.executable, '-c', 'import sys; ' + {hold!r}])"
    bystander = start("import sys; print('starts', flush=True); sys.stdin.read()")
    worker = start(f"import sys; {hold if whose == 'its own' else in_child}")
    wait_until(lambda: "starts" in bystander.log_tail() and "holds" in worker.log_tail())
    assert HELD < worker.resident_bytes() < 3 * HELD
    assert 0 < bystander.resident_bytes() < HELD
    worker.kill()
    wait_until(lambda: worker.resident_bytes() == 0)


def test_memory_of_a_group_whose_first_process_has_ended(start):
    hold = f"import sys; held = b'x' * {HELD}; print('holds', flush=True); sys.stdin.read()"
    worker = start(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {hold!r}])")
    wait(worker)
    wait_until(lambda: "holds" in worker.log_tail())
    assert HELD < worker.resident_bytes() < 3 * HELD


def test_own_memory():
    before = own_resident_bytes()
    held = b"x" * HELD
    assert before + 0.9 * len(held) < own_resident_bytes() < before + 2 * len(held)


def test_no_file_descriptor_is_left(start):
    # Warnings are errors here: a pipe or a process that is forgotten warns when it is collected.
    before = set(os.listdir("/proc/self/fd"))
    for text in ("pass", "import sys; sys.stdin.read()"):
        start(text).kill()
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
