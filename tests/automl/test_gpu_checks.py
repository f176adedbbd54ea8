"""What `doctor` says about GPUs, by a faked `nvidia-smi` and what TensorFlow may see of it."""

from __future__ import annotations

import pytest
from fake_gpus import H200, T4, faked_gpus

from automl import gpu_checks
from automl.child_trainers.gpus import Gpu, listed_gpus, visible_gpus
from automl.child_trainers.workers.mps import CONTROL
from automl.findings import Finding
from automl.gpu_checks import TensorFlowLook, gpu_findings, tensorflow_finding

SEEN = TensorFlowLook(gpus=(("NVIDIA H200", (9, 0)),), cuda="12.5.1", cudnn="9")
UNSEEN = TensorFlowLook(cuda="12.5.1", cudnn="9")
INSTALL = "pip install 'tensorflow[and-cuda]'"


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    yield from faked_gpus(tmp_path / "programs", monkeypatch)


@pytest.fixture
def found(monkeypatch):
    """The findings by subject, if TensorFlow says this."""

    def by_subject(look=SEEN):
        monkeypatch.setattr(gpu_checks, "look_at_tensorflow", lambda: look)
        return {finding.subject: finding for finding in gpu_findings()}

    return by_subject


def test_a_machine_without_a_sign_of_a_gpu(gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_checks, "DRIVER_FILE", tmp_path / "none")
    monkeypatch.setattr(gpu_checks, "look_at_tensorflow", lambda: pytest.fail("it was imported, which takes seconds"))
    assert gpu_findings() == []


def test_gpus_that_tensorflow_sees(gpus, found):
    gpus([H200])
    assert found() == {
        "nvidia-smi": Finding(
            "nvidia-smi", True, "1 GPU: 0 NVIDIA H200, 143,771 MB, compute capability 9.0; driver 570.124.06"
        ),
        "tensorflow": Finding(
            "tensorflow",
            True,
            "it is built for CUDA 12.5.1 and cuDNN 9, and sees 1 GPU: NVIDIA H200 (compute capability 9.0)",
        ),
        "mps": Finding("mps", True, "NVIDIA MPS is not installed, so workers that share a GPU take turns on it"),
    }


@pytest.mark.parametrize(
    ("row", "look", "advice"),
    [
        (H200, UNSEEN, f"install TensorFlow's CUDA libraries: {INSTALL}"),
        (H200, TensorFlowLook(cuda_build=False), f"install TensorFlow with CUDA: {INSTALL}"),
        (
            H200.replace("570.124.06", "470.57.02"),
            UNSEEN,
            "update the driver: CUDA 12.5.1 needs version 525 or newer, and 470.57.02 is installed; or install an "
            "earlier TensorFlow",
        ),
        (
            H200,
            TensorFlowLook(cuda="13.0", cudnn="9"),
            "update the driver: CUDA 13.0 needs version 580 or newer, and 570.124.06 is installed; or install an "
            "earlier TensorFlow",
        ),
        (
            H200,
            TensorFlowLook(
                cuda="12.5.1",
                log="W dso_loader.cc:64] Could not load dynamic library 'libcudnn.so.9'; dlerror: no such file\n"
                "W gpu_device.cc:2348] Cannot dlopen some GPU libraries. Please make sure the missing libraries …\n",
            ),
            f"its CUDA libraries cannot be loaded (libcudnn.so.9); install them: {INSTALL}",
        ),
        (
            H200,
            TensorFlowLook(
                cuda="12.5.1",
                log="E0000 00:00:1.5 2 cuda.cc:52] failed call to cuInit: CUDA error: UNKNOWN (999)\n",
            ),
            "TensorFlow says: failed call to cuInit: CUDA error: UNKNOWN (999); restart the machine if it goes on",
        ),
    ],
)
def test_gpus_that_tensorflow_does_not_see(gpus, found, row, look, advice):
    gpus([row])
    finding = found(look)["tensorflow"]
    assert (finding.well, finding.advice) == (False, advice)
    built = f"built for CUDA {look.cuda} and cuDNN {look.cudnn}" if look.cuda_build else "built without CUDA"
    assert finding.found == f"nvidia-smi lists 1 GPU, but it is {built}, and sees no GPU"


def test_a_part_of_the_gpus(gpus, found):
    gpus([H200, T4])
    assert not found()["tensorflow"].well
    assert found()["tensorflow"].found.startswith("nvidia-smi lists 2 GPUs, but it is built for CUDA 12.5.1")


def test_one_slice_is_all_that_a_process_sees(gpus, found):
    gpus([H200], "GPU 0: x\n  MIG 1g.18gb  Device  0: (UUID: MIG-a)\n  MIG 1g.18gb  Device  1: (UUID: MIG-b)\n")
    assert found()["tensorflow"].well
    assert found()["nvidia-smi"].found.startswith("2 GPUs: 0:0 NVIDIA H200 MIG 1g.18gb, ")


def test_gpus_that_the_environment_hides(gpus, found):
    gpus([H200], chosen="-1")
    assert found(UNSEEN)["tensorflow"].well
    assert found(UNSEEN)["nvidia-smi"].found.endswith("; CUDA_VISIBLE_DEVICES=-1 leaves 0 GPUs")
    gpus([H200], chosen="4")
    assert not found(UNSEEN)["nvidia-smi"].well
    assert found(UNSEEN)["nvidia-smi"].advice == "name GPUs that there are, by their index or UUID"


def test_a_broken_driver(gpus, found):
    gpus(script='echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9')
    finding = found(UNSEEN)["nvidia-smi"]
    assert not finding.well and finding.advice == "install the NVIDIA driver again, or restart the machine"
    assert finding.found == (
        "nvidia-smi lists no GPU: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    )


def test_a_driver_without_its_tool(gpus, monkeypatch, tmp_path, found):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [gpu.value for gpu in visible_gpus()] == ["0"]
    assert not found()["nvidia-smi"].well and found()["nvidia-smi"].found == "it is not installed"
    assert found()["tensorflow"].well
    assert found(UNSEEN)["tensorflow"].found.startswith("CUDA_VISIBLE_DEVICES names 1 GPU, but ")


def test_mps(gpus, found, tmp_path, monkeypatch):
    gpus([H200])
    program = tmp_path / "programs" / CONTROL
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert found()["mps"].found == "NVIDIA MPS is installed; a search whose workers share a GPU starts it"
    program.write_text("#!/bin/sh\nexit 0\n")
    assert found()["mps"].found == f"NVIDIA MPS runs in {tmp_path}; searches use it"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "ImportError: libcudart.so.12: cannot open"),
        ("import os; os._exit(7)", "exit code 7"),
        ("print('garbage')", "exit code 0"),
        ("print('{}')", "exit code 0"),
    ],
)
def test_a_tensorflow_that_cannot_be_imported(monkeypatch, code, found):
    monkeypatch.setattr(gpu_checks, "LOOK", code)
    finding = gpu_checks.look_at_tensorflow()
    assert finding == Finding("tensorflow", False, f"importing it fails: {found}", f"install it again: {INSTALL}")


def test_a_tensorflow_that_hangs(monkeypatch):
    monkeypatch.setattr(gpu_checks, "LOOK", "import threading; threading.Event().wait()")
    monkeypatch.setattr(gpu_checks, "IMPORT_SECONDS", 0.5)
    assert gpu_checks.look_at_tensorflow().found == "importing it fails: it did not answer within 0.5 seconds"


def test_the_tensorflow_of_this_machine(automl, gpus, monkeypatch):
    """It sees none of the faked GPUs, and `doctor` says so in one sentence each."""
    gpus([T4])
    ran = automl("doctor", "--json")
    assert ran.code == 1 and "Traceback" not in ran.err
    look = gpu_checks.look_at_tensorflow()
    assert look.gpus == () and look.cuda_build and int(look.cuda.partition(".")[0]) >= 12
    finding = tensorflow_finding(look, listed_gpus(), [Gpu("0", "0")])
    assert f'"{finding.found}"' in ran.out and not finding.well and finding.advice
    lines = automl("doctor").out.splitlines()
    assert "ok  nvidia-smi: 1 GPU: 1 Tesla T4, 15,360 MB, compute capability 7.5; driver 570.124.06" in lines
    assert f"NO  tensorflow: {finding.found}" in lines and f"     {finding.advice}" in lines
    assert any(line.startswith("ok  devices: 1 GPU, ") and "a search starts 1 worker on" in line for line in lines)
