"""The GPUs of a machine by a faked `nvidia-smi`, and how CUDA_VISIBLE_DEVICES chooses among them."""

import pytest

from automl.child_trainers import gpus
from automl.child_trainers.gpus import Gpu, device_label, gpu_groups, listed_gpus, used_memory, visible_gpus

H200 = "0, GPU-11aa22bb-0000, NVIDIA H200, 143771, 570.124.06, 9.0"
T4 = "1, GPU-33cc44dd-1111, Tesla T4, 15360, 570.124.06, 7.5"
TWO_T4 = [T4.replace("1, GPU-33", "0, GPU-55"), T4]
PLAIN = """GPU 0: NVIDIA H200 (UUID: GPU-11aa22bb-0000)
GPU 1: Tesla T4 (UUID: GPU-33cc44dd-1111)"""
SLICED = """GPU 0: NVIDIA H200 (UUID: GPU-11aa22bb-0000)
  MIG 1g.18gb     Device  0: (UUID: MIG-aaaa-1)
  MIG 3g.71gb     Device  1: (UUID: MIG-bbbb-2)
GPU 1: Tesla T4 (UUID: GPU-33cc44dd-1111)"""


@pytest.fixture
def smi(monkeypatch, tmp_path):
    """Makes a `nvidia-smi` of shell commands, or one that lists the given rows; and CUDA_VISIBLE_DEVICES."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(rows=(), listing=PLAIN, script=None, chosen=None):
        if script is None:
            (tmp_path / "rows").write_text("".join(f"{row}\n" for row in rows))
            (tmp_path / "listing").write_text(listing)
            script = f'if [ "$1" = -L ]; then cat {tmp_path}/listing; else cat {tmp_path}/rows; fi'
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        gpus.forget_gpus()

    gpus.forget_gpus()
    yield make
    gpus.forget_gpus()


def test_a_gpu_is_a_record(smi):
    smi([H200, T4])
    assert visible_gpus() == [
        Gpu(
            value="GPU-11aa22bb-0000",
            label="0",
            name="NVIDIA H200",
            memory=143771,
            capability=(9, 0),
            driver="570.124.06",
            uuid="GPU-11aa22bb-0000",
        ),
        Gpu(
            value="GPU-33cc44dd-1111",
            label="1",
            name="Tesla T4",
            memory=15360,
            capability=(7, 5),
            driver="570.124.06",
            uuid="GPU-33cc44dd-1111",
        ),
    ]
    assert listed_gpus().failure is None


def test_what_the_driver_does_not_tell_is_unknown(smi):
    smi(["0, GPU-1, NVIDIA GB10, [N/A], 580.1, [N/A]"])
    (gpu,) = visible_gpus()
    assert (gpu.memory, gpu.capability, gpu.title) == (None, None, "GPU 0 (NVIDIA GB10)")


def test_a_driver_that_does_not_know_compute_capabilities(smi, tmp_path):
    refuses = 'echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2'
    row = "0, GPU-1, Tesla V100, 16160, 450.80.02"
    smi(script=f'case "$1" in *compute_cap*) {refuses};; -L) ;; *) echo "{row}";; esac')
    (gpu,) = visible_gpus()
    assert (gpu.name, gpu.memory, gpu.capability) == ("Tesla V100", 16160, None)


def test_slices_take_the_place_of_their_gpu(smi):
    smi([H200, T4], SLICED)
    small, large, whole = visible_gpus()
    assert [(gpu.value, gpu.label, gpu.is_slice) for gpu in (small, large, whole)] == [
        ("MIG-aaaa-1", "0:0", True),
        ("MIG-bbbb-2", "0:1", True),
        ("GPU-33cc44dd-1111", "1", False),
    ]
    assert small.name == "NVIDIA H200 MIG 1g.18gb" and small.capability == (9, 0)
    assert small.memory == 16307 < 16 * 1024  # NVIDIA's 18 GB of memory are 16 GiB


@pytest.mark.parametrize(
    ("chosen", "values"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("1,0", ["1", "0"]),
        ("1,7,0", ["1"]),  # CUDA ignores what follows an unknown device
        ("0,-1,1", ["0"]),
        ("0,0", ["0"]),
        ("7", []),
        ("GPU-33cc44dd-1111", ["GPU-33cc44dd-1111"]),
        ("GPU-33, GPU-55", ["GPU-33", "GPU-55"]),
        ("GPU-", []),  # which one?
        ("GPU-77", []),
        ("MIG-1", []),
        ("all", []),
    ],
)
def test_the_environment_chooses_gpus(smi, chosen, values):
    smi(TWO_T4, "", chosen=chosen)
    assert [gpu.value for gpu in visible_gpus()] == values
    assert all(gpu.name == "Tesla T4" for gpu in visible_gpus())


@pytest.mark.parametrize(
    ("chosen", "values"),
    [
        ("MIG-bbbb-2", ["MIG-bbbb-2"]),
        ("MIG-bb,MIG-aa", ["MIG-bb", "MIG-aa"]),
        ("GPU-11aa22bb-0000", ["MIG-aaaa-1", "MIG-bbbb-2"]),  # CUDA would take the first only
        ("MIG-", []),
    ],
)
def test_the_environment_chooses_slices(smi, chosen, values):
    smi([H200, T4], SLICED, chosen=chosen)
    assert [gpu.value for gpu in visible_gpus()] == values


def test_an_index_among_different_gpus(smi, monkeypatch):
    """CUDA counts the fastest first unless it is told otherwise, so only the least of all GPUs is certain."""
    smi([H200, T4], chosen="0")
    assert visible_gpus() == [Gpu("0", "0", memory=15360, capability=(7, 5), driver="570.124.06")]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    smi([H200, T4], chosen="0")
    assert [(gpu.value, gpu.name) for gpu in visible_gpus()] == [("0", "NVIDIA H200")]


@pytest.mark.parametrize("chosen", ["0", "1,3", "GPU-ab,MIG-cd"])
def test_without_nvidia_smi_the_environment_is_believed(smi, monkeypatch, tmp_path, chosen):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert [gpu.value for gpu in visible_gpus()] == chosen.split(",")
    assert {gpu.memory for gpu in visible_gpus()} == {None}


FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        (f'echo "{FAILED}"; exit 9', f"nvidia-smi lists no GPU: {FAILED}"),
        ("echo No devices were found; exit 6", "nvidia-smi lists no GPU: No devices were found"),
        ("exit 1", "nvidia-smi lists no GPU: exit code 1"),
        ("kill -9 $$", "nvidia-smi lists no GPU: exit code -9"),
        ("echo hello, world", "nvidia-smi lists no GPU: hello, world"),
        ("printf '\\377\\376, \\000'", "nvidia-smi lists no GPU: "),
        ("sleep 1000", "nvidia-smi lists no GPU: it did not answer within 0.5 seconds"),
        ("sleep 1000 & wait", "nvidia-smi lists no GPU: it did not answer within 0.5 seconds"),
        ("", "nvidia-smi lists no GPU: exit code 0"),
    ],
)
@pytest.mark.parametrize("chosen", [None, "0"])
def test_a_broken_nvidia_smi_lists_no_gpu(smi, monkeypatch, script, failure, chosen):
    monkeypatch.setattr(gpus, "SMI_SECONDS", 0.5 if "sleep" in script else 60.0)
    smi(script=script, chosen=chosen)
    assert visible_gpus() == []
    assert listed_gpus().failure.startswith(failure)
    assert "\n" not in listed_gpus().failure


def test_a_nvidia_smi_that_cannot_be_run(smi, tmp_path):
    smi(script="")
    (tmp_path / "nvidia-smi").write_text("neither a script nor a program")
    gpus.forget_gpus()
    assert visible_gpus() == []
    assert listed_gpus().failure == "nvidia-smi lists no GPU: it cannot be started: Exec format error"


def test_no_nvidia_smi(smi, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == [] and listed_gpus().failure == "nvidia-smi is not installed"


def test_gpus_are_read_before_the_coordinator_hides_them(smi, monkeypatch):
    smi(TWO_T4, "", chosen="0,1")
    visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert [gpu.value for gpu in visible_gpus()] == ["0", "1"]


@pytest.mark.parametrize(
    ("values", "size", "groups"),
    [
        (["0", "1", "2"], 1, ["0", "1", "2"]),
        (["0", "GPU-b", "2", "3", "4"], 2, ["0,GPU-b", "2,3"]),
        (["0", "1"], 2, ["0,1"]),
        (["0"], 2, []),
        ([], 1, []),
    ],
)
def test_gpus_of_one_child_each(values, size, groups):
    assert gpu_groups([Gpu(value, value) for value in values], size) == groups


def test_the_names_of_devices(smi):
    smi([H200, T4], SLICED)
    assert device_label("MIG-bbbb-2") == "gpu 0:1"
    assert device_label("GPU-33cc44dd-1111,unknown") == "gpu 1,unknown"


def test_the_memory_that_is_in_use(smi):
    smi(TWO_T4, "")
    found = visible_gpus()
    smi(["GPU-55cc44dd-1111, 900", "GPU-33cc44dd-1111, [N/A]", "GPU-other, 7"])
    assert used_memory(found) == {"GPU-55cc44dd-1111": 900}
    smi(script="exit 9")
    assert used_memory(found) == used_memory([]) == {}
