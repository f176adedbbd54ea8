"""How many workers share a GPU, and its memory among them."""

import pytest

from automl.child_trainers.gpu_sharing import (
    CONTEXT_MB,
    LEAST_MB,
    automatic_sharing,
    busy_gpus,
    memory_limit,
    workers_on_a_gpu,
)
from automl.child_trainers.gpus import Gpu

GIB = 2**30


def gpu(memory, label="0", name="NVIDIA A"):
    return Gpu(label, label, name=name, memory=memory, uuid=f"GPU-{label}")


@pytest.mark.parametrize(
    ("memories", "threads", "cores", "host", "workers", "reason"),
    [
        ([143_771], 1, 16, 112 * GIB, 14, "as many as 16 cores allow"),
        ([143_771], 2, 16, 112 * GIB, 7, "as many as 16 cores allow"),
        ([143_771], 1, 64, 450 * GIB, 16, "more would not train more children"),
        ([143_771], 1, 64, 30 * GIB, 10, "as many as 30,720 MB of the machine's memory allow"),
        ([143_771], 1, 64, None, 16, "more would not train more children"),
        ([15_360], 1, 64, None, 3, "as many as the 15,360 MB of GPU 0 (NVIDIA A) allow"),
        ([143_771, 143_771, 15_360], 1, 64, None, 3, "as many as the 15,360 MB of GPU 2 (NVIDIA A) allow"),
        ([143_771] * 8, 1, 64, None, 7, "as many as 64 cores allow for 8 GPUs"),
        ([143_771] * 2, 1, 64, 30 * GIB, 5, "as many as 30,720 MB of the machine's memory allow for 2 GPUs"),
        ([143_771], 1, 1, None, 1, "there is one core"),
        ([2_000], 1, 64, None, 1, "as many as the 2,000 MB of GPU 0 (NVIDIA A) allow"),
        ([143_771, None], 1, 64, None, 1, "the memory of GPU 1 (NVIDIA A) is not known"),
    ],
)
def test_as_many_workers_as_cores_and_memory_allow(memories, threads, cores, host, workers, reason):
    gpus = [gpu(memory, str(index)) for index, memory in enumerate(memories)]
    assert automatic_sharing(gpus, threads=threads, cores=cores, host_memory=host) == (workers, reason)


def test_every_worker_has_room_for_its_context():
    """Fourteen workers leave a fiftieth of the memory, and a context each."""
    assert memory_limit([gpu(143_771)], 14) == int(0.98 * 143_771 / 14) - CONTEXT_MB == 9295
    assert 14 * (9295 + CONTEXT_MB) <= 0.98 * 143_771
    assert memory_limit([gpu(143_771), gpu(15_360)], 2) == int(0.98 * 15_360 / 2) - CONTEXT_MB


def test_a_worker_alone_has_no_limit():
    assert memory_limit([gpu(143_771)], 1) is None
    assert memory_limit([gpu(None)], 14) is memory_limit([], 14) is None


def test_too_little_memory():
    least = CONTEXT_MB + LEAST_MB
    assert memory_limit([gpu(4_000)], 2) is not None
    with pytest.raises(ValueError) as caught:
        memory_limit([gpu(4_000)], 3)
    assert str(caught.value) == (
        f"GPU 0 (NVIDIA A) has 4,000 MB of memory, too little for 3 workers, each of which needs {least:,} MB; let at "
        "most 2 share it, with --workers or --workers-per-gpu."
    )
    with pytest.raises(ValueError) as caught:
        memory_limit([gpu(1_500, name="Quadro K620")], 1)
    assert str(caught.value) == (
        f"GPU 0 (Quadro K620) has 1,500 MB of memory, and a worker needs {least:,} MB; train on the processor with "
        "CUDA_VISIBLE_DEVICES=-1."
    )


@pytest.mark.parametrize(("memory", "workers"), [(4_000, 9), (15_360, 100), (143_771, 1024)])
def test_as_many_as_the_message_names_do_share_it(memory, workers):
    with pytest.raises(ValueError, match="too little") as caught:
        memory_limit([gpu(memory)], workers)
    most = int(str(caught.value).partition("at most ")[2].partition(" ")[0])
    memory_limit([gpu(memory)], most)
    with pytest.raises(ValueError, match="too little"):
        memory_limit([gpu(memory)], most + 1)


@pytest.mark.parametrize(
    ("workers", "groups", "most"), [(1, 1, 1), (4, 1, 4), (4, 2, 2), (5, 2, 3), (1, 2, 1), (0, 1, 1)]
)
def test_workers_are_dealt_in_turn(workers, groups, most):
    assert workers_on_a_gpu(workers, groups) == most


def test_other_processes_on_a_gpu():
    gpus = [gpu(16_000, "0"), gpu(16_000, "1"), Gpu("2", "2")]
    assert busy_gpus(gpus, {}, 4) == busy_gpus(gpus, {"GPU-0": 500, "GPU-2": 9_000}, 4) == []
    assert busy_gpus(gpus, {"GPU-1": 9_000}, 4) == [
        "Other processes hold 9,000 of the 16,000 MB of GPU 1 (NVIDIA A), on which 4 workers are to train; if another "
        "search uses it, give each fewer workers with --workers, or children may run out of memory."
    ]
