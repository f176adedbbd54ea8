"""NVIDIA MPS by a faked control program: who starts a server, who finds it, and what ends it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import ended, watched

from automl.child_trainers.artefacts import FolderArtefacts
from automl.child_trainers.workers import mps
from automl.child_trainers.workers.local_pool import LocalPool
from automl.child_trainers.workers.monitor import Deadlines
from automl.child_trainers.workers.mps import CONTROL, LOGS, PIPES, MpsError, running_mps, start_mps
from automl.child_trainers.workers.pool import PoolSetup
from automl.child_trainers.workers.process import ROOT

# A daemon that writes down its environment, and ends when it is told to quit.
FAKE = f"""#!{sys.executable}
import json, os, select, subprocess, sys, time
pipes = os.environ.get({PIPES!r}, "/nowhere")
record, pid_file, fifo = os.environ["MPS_RECORD"], pipes + "/{CONTROL}.pid", pipes + "/control"
if sys.argv[1:] == ["-d"]:
    if "refuses" in os.environ.get("MPS_MOOD", ""):
        print("The GPU is in exclusive mode", file=sys.stderr)
        sys.exit(1)
    if "hangs" in os.environ.get("MPS_MOOD", ""):
        select.select([], [], [])
    ready, begun = os.pipe()
    subprocess.Popen([sys.argv[0], "--serve", str(begun)], pass_fds=[begun], start_new_session=True)
    os.close(begun)
    sys.exit(os.read(ready, 1) != b"!")
if sys.argv[1:2] == ["--serve"]:
    os.mkfifo(fifo)
    with open(pid_file, "w") as file:
        file.write(str(os.getpid()))
    with open(record, "a") as file:
        file.write(json.dumps({{"pid": os.getpid(), "environment": dict(os.environ)}}) + "\\n")
    os.write(int(sys.argv[2]), b"!")
    os.close(int(sys.argv[2]))
    told = os.open(fifo, os.O_RDWR)
    while not os.read(told, 100).startswith(b"quit"):
        pass
    if "stubborn" in os.environ.get("MPS_MOOD", ""):
        select.select([], [], [])
    os.unlink(pid_file)
    os.unlink(fifo)
    sys.exit()
try:
    daemon = os.pidfd_open(int(open(pid_file).read()))
except OSError:
    print("Cannot find MPS control daemon process", file=sys.stderr)
    sys.exit(1)
command = sys.stdin.readline()
if command.startswith("quit"):
    with open(fifo, "w") as file:
        file.write(command)
    select.select([daemon], [], [])
"""
COORDINATOR = """
import os, sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.workers.mps import start_mps
lifeline, alive = os.pipe()
server = start_mps(sys.argv[1], lifeline, [])
print("started" if server else "none", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Installs the control program. Returns a function that reads the records of its daemons."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / CONTROL
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("MPS_RECORD", str(tmp_path / "record"))
    monkeypatch.delenv("MPS_MOOD", raising=False)
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setattr(mps, "DEFAULT_PIPES", str(tmp_path / "default"))

    def daemons():
        record = tmp_path / "record"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    yield daemons
    for daemon in daemons():
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon["pid"], signal.SIGKILL)


@pytest.fixture
def lifeline():
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_a_server_lives_as_long_as_its_search(control, lifeline, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # of the coordinator
    server = start_mps(ROOT, lifeline[0], ["GPU-a", "GPU-b"])
    pipes = Path(server.environment[PIPES])
    assert server.environment == {PIPES: str(pipes), LOGS: str(pipes.with_name("log"))}
    assert pipes.parent.stat().st_mode & 0o777 == 0o700
    (daemon,) = control()
    assert daemon["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert {name: daemon["environment"][name] for name in (PIPES, LOGS)} == server.environment
    with watched(daemon["pid"]) as sentinel:
        assert not ended(sentinel, 0)
        os.close(lifeline[1])
        server.close()
        assert ended(sentinel, 0) and not pipes.parent.exists()
    server.close()


def test_a_server_of_all_gpus(control, lifeline, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    server = start_mps(ROOT, lifeline[0], [])
    assert "CUDA_VISIBLE_DEVICES" not in control()[0]["environment"]
    os.close(lifeline[1])
    server.close()


def test_a_killed_coordinator_leaves_no_server(control):
    command = [sys.executable, "-P", "-c", COORDINATOR, ROOT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as coordinator:
        try:
            assert coordinator.stdout.readline() == "started\n"
            (daemon,) = control()
            with watched(daemon["pid"]) as sentinel:
                assert not ended(sentinel, 0)
                coordinator.kill()
                assert ended(sentinel)
        finally:
            coordinator.kill()


@pytest.fixture
def users_own(control, tmp_path, monkeypatch):
    """A server that the user has started."""
    pipes = tmp_path / "own"
    pipes.mkdir()
    subprocess.run([CONTROL, "-d"], env={**os.environ, PIPES: str(pipes)}, check=True)
    return pipes, control()[0]["pid"]


def test_a_server_that_runs_is_used_and_left_running(control, lifeline, monkeypatch, users_own):
    pipes, pid = users_own
    for name, value in ((PIPES, str(pipes)), (PIPES, None)):
        if value is None:
            monkeypatch.delenv(name)
            monkeypatch.setattr(mps, "DEFAULT_PIPES", str(pipes))
        else:
            monkeypatch.setenv(name, value)
        assert running_mps() == str(pipes)
        server = start_mps(ROOT, lifeline[0], [])
        assert server.environment == {}
        server.close()
    with watched(pid) as sentinel:
        os.close(lifeline[1])
        assert not ended(sentinel, 0)
    assert len(control()) == 1


def test_a_folder_without_a_server(control, lifeline, tmp_path):
    (tmp_path / "default").mkdir()
    assert running_mps() is None
    server = start_mps(ROOT, lifeline[0], [])
    assert server.environment
    os.close(lifeline[1])
    server.close()


def test_where_it_is_not_installed(lifeline, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert running_mps() is None and start_mps(ROOT, lifeline[0], []) is None


@pytest.fixture
def own_temporary(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(mps.tempfile, "tempdir", str(folder))
    return folder


def test_a_server_that_does_not_start(control, lifeline, monkeypatch, own_temporary):
    monkeypatch.setenv("MPS_MOOD", "refuses")
    with pytest.raises(MpsError, match=r"^The GPU is in exclusive mode$"):
        start_mps(ROOT, lifeline[0], [])
    assert control() == [] and list(own_temporary.iterdir()) == []


def test_a_program_that_cannot_be_run(control, lifeline, tmp_path, own_temporary):
    (tmp_path / "programs" / CONTROL).write_text("neither a script nor a program")
    with pytest.raises(MpsError, match=r"^Exec format error$"):
        start_mps(ROOT, lifeline[0], [])
    assert list(own_temporary.iterdir()) == []


def test_a_server_that_hangs_at_its_start(control, tmp_path, monkeypatch):
    monkeypatch.setenv("MPS_MOOD", "hangs")
    monkeypatch.setattr(mps, "ANSWER_SECONDS", 1.0)
    assert mps._start_daemon(CONTROL, str(tmp_path)) == "it did not start within 1 seconds"


def test_a_server_that_does_not_end_is_killed(control, tmp_path, monkeypatch):
    (tmp_path / "pipe").mkdir()
    monkeypatch.setenv("MPS_MOOD", "stubborn")
    monkeypatch.setenv(PIPES, str(tmp_path / "pipe"))
    monkeypatch.setattr(mps, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(mps, "QUIT_SECONDS", 0)
    subprocess.run([CONTROL, "-d"], check=True)
    with watched(control()[0]["pid"]) as sentinel:
        mps._stop_daemon(CONTROL, str(tmp_path))
        assert ended(sentinel)


def test_another_process_of_its_pid_is_left_alone(control, tmp_path, monkeypatch):
    (tmp_path / "pipe").mkdir()
    monkeypatch.setenv(PIPES, str(tmp_path / "pipe"))
    with subprocess.Popen(["sleep", "1000"]) as other:
        (tmp_path / "pipe" / f"{CONTROL}.pid").write_text(str(other.pid))
        monkeypatch.setattr(mps, "ANSWER_SECONDS", 0.5)
        monkeypatch.setattr(mps, "QUIT_SECONDS", 0)
        mps._stop_daemon("false", str(tmp_path))
        assert other.poll() is None
        other.kill()


@pytest.fixture
def new_pool(new_search, settings_of, order_of, tmp_path):
    """A pool with the given GPUs, whose workers wait for children."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from automl.search_spaces.decisions import Choice\n\n"
        'def space():\n    return (yield Choice("size", (1, 2)))\n\n'
        'def task(spec):\n    import os\n    return {"reward": 1.0, "environment": dict(os.environ)}\n'.replace(
            "dict(os.environ)", f"[os.environ.get({PIPES!r}), os.environ.get({LOGS!r})]"
        )
    )
    pools = []

    def make(count, gpus, uuids=()):
        search = new_search([(0,)] * 2, settings=settings_of(space=f"{file}:space", task=f"{file}:task"))
        artefacts = FolderArtefacts(tmp_path / "logs")
        setup = PoolSetup(
            search.store, order_of(search), None, artefacts, Deadlines(stall=1e9), count, gpus, gpu_uuids=uuids
        )
        pools.append(LocalPool(setup))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_workers_that_share_a_gpu_have_a_server(control, new_pool):
    pool = new_pool(2, ["0"], ["GPU-a"])
    (daemon,) = control()
    for slot in pool._slots:
        environment = Path(f"/proc/{slot.process.pid}/environ").read_text().split("\0")
        assert f"{PIPES}={daemon['environment'][PIPES]}" in environment
        assert "CUDA_VISIBLE_DEVICES=0" in environment
    assert PIPES not in os.environ and pool.notes == []
    with watched(daemon["pid"]) as sentinel:
        pool.close()
        assert ended(sentinel, 0)


@pytest.mark.parametrize(
    ("count", "gpus", "uuids"),
    [
        (1, ["0"], ["GPU-a"]),
        (2, ["0", "1"], ["GPU-a", "GPU-b"]),
        (2, [], []),
        (4, ["MIG-a", "MIG-b"], ["MIG-a", "MIG-b"]),  # a server has one slice only
    ],
)
def test_other_workers_have_none(control, new_pool, count, gpus, uuids):
    pool = new_pool(count, gpus, uuids)
    assert control() == [] and pool.notes == []


def test_without_a_server_workers_take_turns(control, new_pool, monkeypatch):
    monkeypatch.setenv("MPS_MOOD", "refuses")
    pool = new_pool(2, ["0"])
    assert pool.notes == [
        "NVIDIA MPS cannot be started, so workers take turns on their GPU (The GPU is in exclusive mode)."
    ]
    assert all(slot.process is not None and not slot.process.poll() for slot in pool._slots)
