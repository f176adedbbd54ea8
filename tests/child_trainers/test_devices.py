import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from automl.child_trainers import devices
from automl.child_trainers.gpus import Gpu
from automl.child_trainers.workers.process import ROOT


def test_workers_by_default(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)  # of which this process may use fewer
    for cores, workers in ((8, 4), (3, 1), (1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        assert devices.default_workers() == workers


@pytest.fixture
def memory(monkeypatch):
    """Says how much memory the machine has, and what its control group allows; None where neither can be told."""

    def tells(machine, group):
        def sysconf(name):
            if machine is None:
                raise ValueError("unrecognized configuration name")
            return {"SC_PHYS_PAGES": machine // 100, "SC_PAGE_SIZE": 100}[name]

        def read_text(path, *arguments, **options):
            assert str(path) == "/sys/fs/cgroup/memory.max"
            if group is None:
                raise FileNotFoundError("no such file")
            return group

        monkeypatch.setattr(os, "sysconf", sysconf)
        monkeypatch.setattr(Path, "read_text", read_text)

    return tells


@pytest.mark.parametrize(
    ("machine", "group", "share"),
    [
        (100_000, None, 30_000),
        (100_000, "max\n", 30_000),
        (100_000, "50000\n", 15_000),
        (50_000, "100000\n", 15_000),
        (None, "50000\n", 15_000),
        (None, "max\n", None),
        (None, None, None),
    ],
)
def test_a_worker_s_share_of_the_memory(memory, machine, group, share):
    memory(machine, group)
    assert devices.memory_share(3) == share


def test_a_worker_s_share_of_this_machine_s_memory():
    assert devices.memory_share(1) > 2**28
    assert devices.memory_share(4) == devices.memory_share(1) // 4


@pytest.fixture
def processor(monkeypatch):
    """Says what the operating system tells of the processor: a text, or an error."""

    def tells(told):
        def read_text(path, *arguments, **options):
            assert str(path) == "/proc/cpuinfo"
            if isinstance(told, OSError):
                raise told
            return told

        monkeypatch.setattr(Path, "read_text", read_text)

    return tells


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16 amx_tile\n", "bfloat16"),
        ("flags\t\t: fpu sse2 amx_bf16 amx_tile\n", "bfloat16"),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8\n", "float32"),
        ("", "float32"),
        (FileNotFoundError("no such file"), "float32"),  # not Linux
        (PermissionError("not yours"), "float32"),
    ],
)
def test_the_precision_by_default_is_the_processor_s_fastest(processor, told, precision):
    processor(told)
    assert devices.default_precision([]) == precision


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([(8, 0)], "bfloat16"),
        ([(9, 0), (8, 6)], "bfloat16"),
        ([(10, 0)], "bfloat16"),
        ([(7, 5)], "float32"),  # no instructions for bfloat16
        ([(8, 0), (7, 0)], "float32"),  # all children of a search have one precision
        ([None], "float32"),
    ],
)
def test_the_precision_by_default_on_gpus(processor, capabilities, precision):
    processor("flags : avx512_bf16")
    gpus = [Gpu(str(index), str(index), capability=capability) for index, capability in enumerate(capabilities)]
    assert devices.default_precision(gpus) == precision


def test_the_precision_by_default_of_this_machine_is_a_known_one():
    assert devices.default_precision([]) in devices.PRECISIONS
    assert devices.FLOAT32 == devices.Compute() == devices.Compute("float32", xla=False)


def test_environment(monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.delenv(name, raising=False)
    assert devices.environment(threads=2, gpu=None) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_NUM_INTRAOP_THREADS": "2",
        "TF_NUM_INTEROP_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "TF_DETERMINISTIC_OPS": "1",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    assert devices.environment(threads=1, gpu="3")["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert devices.environment(threads=1, gpu=None)["TF_CPP_MIN_LOG_LEVEL"] == "0"
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # the user's own choice stands
    assert devices.environment(threads=1, gpu=None)["TF_ENABLE_ONEDNN_OPTS"] == "0"


@pytest.fixture
def tensorflow(monkeypatch):
    """TensorFlow with two GPUs; `limits` has the configuration that each of them got."""
    limits = {}
    config = types.SimpleNamespace(
        gpus=["GPU:0", "GPU:1"],
        limits=limits,
        list_physical_devices=lambda kind: config.gpus if kind == "GPU" else [],
        get_logical_device_configuration=limits.get,
        set_logical_device_configuration=limits.__setitem__,
        LogicalDeviceConfiguration=lambda memory_limit: types.SimpleNamespace(memory_limit=memory_limit),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    return config


def test_the_memory_of_a_gpu(tensorflow, monkeypatch):
    """A limit of TensorFlow is the memory of its GPU; without one, all that the GPU has."""
    known = [Gpu("0", "0", memory=16_000), Gpu("1", "1", memory=8_000)]
    monkeypatch.setattr(devices, "visible_gpus", lambda: known)
    assert devices.gpu_memory() == 8_000 * 2**20
    devices.limit_gpu_memory(3_000)
    assert [limit.memory_limit for (limit,) in tensorflow.limits.values()] == [3_000, 3_000]
    assert devices.gpu_memory() == 3_000 * 2**20
    tensorflow.limits.clear()
    monkeypatch.setattr(devices, "visible_gpus", lambda: [Gpu("0", "0")])
    assert devices.gpu_memory() is None
    tensorflow.gpus = []
    assert devices.gpu_memory() is None


def test_native_prints_are_kept_from_the_terminal_and_nothing_else():
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.devices import quiet_native_start
before = set(os.listdir("/proc/self/fd"))
with quiet_native_start():
    os.write(2, b"native noise")
assert set(os.listdir("/proc/self/fd")) == before
os.write(2, b"after")
try:
    with quiet_native_start():
        raise KeyError("through")
except KeyError:
    os.write(2, b", raised")
os.close(2)
with quiet_native_start():
    print("closed")
"""
    ran = subprocess.run([sys.executable, "-P", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("closed\n", "after, raised")


NATIVE = [
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    b"I0000 00:00:1795858934.073117   23050 port.cc:153] oneDNN custom operations are on.\n",
    b"2026-01-02 03:04:05.678901: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.\n",
    b"I1128 09:27:00.161491   23822 cpu_feature_guard.cc:227] This TensorFlow binary is optimized\n",
    b"To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow\n",
    b"W0000 00:00:1795858934.073117   23050 some.cc:1] Unable to register\n",
]
NO_GPU = b"E0000 00:00:1795858949.508463   23050 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error\n"
OTHERS = [
    b"E0000 00:00:1795858949.508463   23050 master.cc:52] out of disk\n",
    b"F0000 00:00:1795858949.508463   23050 tensor.cc:52] Check failed: 1 == 2\n",
    b"I think that TensorFlow is installed\n",
    b"the user's own line\n",
    b"and one without an end",
]


@pytest.mark.parametrize(("chosen", "level", "hidden"), [("-1", "2", 7), ("0", "2", 6), ("-1", "0", 0)])
def test_native_lines_of_the_start_are_hidden_and_all_others_are_not(chosen, level, hidden):
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from automl.child_trainers.devices import without_native_lines
before = set(os.listdir("/proc/self/fd"))
try:
    with without_native_lines():
        os.write(2, sys.stdin.buffer.read())
        raise KeyError("through")
except KeyError:
    os.write(2, b", raised")
assert set(os.listdir("/proc/self/fd")) == before
os.close(2)
with without_native_lines():
    print("closed")
"""
    lines = [*NATIVE, NO_GPU, *OTHERS]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": chosen, "TF_CPP_MIN_LOG_LEVEL": level}
    command = [sys.executable, "-P", "-c", code, ROOT]
    ran = subprocess.run(command, input=b"".join(lines), capture_output=True, check=True, env=environment)
    assert ran.stdout == b"closed\n"
    assert ran.stderr == b"".join(lines[hidden:]) + b", raised"
