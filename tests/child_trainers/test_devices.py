import os
import subprocess
import sys

import pytest

from child_trainers import devices
from child_trainers.process import ROOT


@pytest.fixture
def fresh_list():
    devices.visible_gpus.cache_clear()
    yield
    devices.visible_gpus.cache_clear()


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [("", []), ("-1", []), ("0", ["0"]), ("1,3", ["1", "3"]), ("GPU-ab,MIG-cd", ["GPU-ab", "MIG-cd"])],
)
def test_the_environment_chooses_gpus(fresh_list, monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert devices.visible_gpus() == gpus


def test_gpus_are_listed_by_the_driver_s_tool(fresh_list, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.visible_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g: y'\necho 'GPU 1: B (UUID: z)'\n")
    tool.chmod(0o755)
    devices.visible_gpus.cache_clear()
    assert devices.visible_gpus() == ["0", "1"]


def test_gpus_are_read_before_the_coordinator_hides_them(fresh_list, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    devices.visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert devices.visible_gpus() == ["0", "1"]


def test_workers_by_default(monkeypatch):
    assert devices.default_workers(["0", "1", "2"]) == 3
    for cores, workers in ((8, 4), (3, 1), (1, 1), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert devices.default_workers([]) == workers


def test_environment(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    assert devices.environment(threads=2, gpu=None) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_NUM_INTRAOP_THREADS": "2",
        "TF_NUM_INTEROP_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "TF_DETERMINISTIC_OPS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    assert devices.environment(threads=1, gpu="3")["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert devices.environment(threads=1, gpu=None)["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_native_prints_are_kept_from_the_terminal_and_nothing_else():
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from child_trainers.devices import quiet_native_start
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
