"""How many workers share a GPU, and how much of its memory each of them may use. Memory is in MB of 2**20 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from automl.child_trainers.gpus import Gpu

# Of the memory that a GPU has: the driver keeps a part of it for itself, and page tables need some.
USABLE_SHARE = 0.98
# The CUDA context of a process, with the kernels and workspaces of cuDNN and cuBLAS, lies outside the memory that
# TensorFlow allocates and limits. An estimate above what is known of cards from Volta to Hopper, 300 to 700 MB.
CONTEXT_MB = 768
# An estimate of what the data, the smallest networks and the first workspaces of cuDNN need.
LEAST_MB = 1024
# What a worker gets if there is a choice. A network of 20 layers of 48 filters at batch 128 keeps three tensors of
# 128 x 32 x 32 x 48 float32 numbers a layer for its gradients, 24 MB each and 1,440 MB in all. Gradients and workspaces
# take about as much again.
ROOMY_MB = 4096 - CONTEXT_MB
# Memory of the machine that a worker with TensorFlow, its CUDA libraries and the data needs.
HOST_MB = 3072
# Beyond this many, small children leave no part of a GPU idle: 14 workers trained hardly more children an hour than 8.
MOST_WORKERS = 16
# Cores for the coordinator with its controller, and for the driver.
SPARE_CORES = 2
# Memory that a desktop may hold on a GPU. A process that trains holds more.
IDLE_MB = 1024


class Sharing(NamedTuple):
    """The number of workers on each GPU, and the reason for it, which follows a colon in a sentence."""

    workers: int
    reason: str


def automatic_sharing(gpus: Sequence[Gpu], *, threads: int, cores: int, host_memory: int | None) -> Sharing:
    """As many workers a GPU as processor cores and memory allow, at most `MOST_WORKERS`, at least one.

    Args:
        gpus: all GPUs of the search, at least one.
        threads: processor threads of a worker.
        cores: processor cores that this process may use.
        host_memory: memory of the machine in bytes that all workers together may use; None if it is not known.
    """
    memories = {gpu.memory: gpu for gpu in reversed(gpus) if gpu.memory is not None}
    if any(gpu.memory is None for gpu in gpus) or not memories:
        return Sharing(1, f"the memory of {next(gpu for gpu in gpus if gpu.memory is None).title} is not known")
    least = min(memories)
    for_all = "" if len(gpus) == 1 else f" for {len(gpus)} GPUs"
    of_cores = f"as many as {cores} cores allow{for_all}" if cores > 1 else "there is one core"
    limits = [
        Sharing(max(0, cores - SPARE_CORES) // (threads * len(gpus)), of_cores),
        Sharing(_most_workers(least, ROOMY_MB), f"as many as the {least:,} MB of {memories[least].title} allow"),
        Sharing(MOST_WORKERS, "more would not train more children"),
    ]
    if host_memory is not None:
        megabytes = host_memory // 2**20
        reason = f"as many as {megabytes:,} MB of the machine's memory allow{for_all}"
        limits.append(Sharing(megabytes // (HOST_MB * len(gpus)), reason))
    fewest = min(limits, key=lambda limit: limit.workers)
    return fewest._replace(workers=max(1, fewest.workers))


def workers_on_a_gpu(workers: int, groups: int) -> int:
    """The largest number of workers that share a GPU if they are dealt to groups of GPUs in turn."""
    return max(1, -(-workers // groups))


def memory_limit(gpus: Sequence[Gpu], workers: int) -> int | None:
    """The memory that TensorFlow may allocate on a GPU in each of several workers that share it; None for no limit.

    Raises:
        ValueError: a worker would have too little; the message says how many may share the GPU.
    """
    limits = []
    for gpu in gpus:
        if gpu.memory is None:
            continue
        limit = int(USABLE_SHARE * gpu.memory / workers) - CONTEXT_MB
        if limit < LEAST_MB:
            raise ValueError(_too_little(gpu, workers))
        limits.append(limit)
    return min(limits) if limits and workers > 1 else None


def _most_workers(memory: int, each: int) -> int:
    return int(USABLE_SHARE * memory) // (CONTEXT_MB + each)


def _too_little(gpu: Gpu, workers: int) -> str:
    assert gpu.memory is not None
    need = f"{CONTEXT_MB + LEAST_MB:,} MB"
    most = _most_workers(gpu.memory, LEAST_MB)
    if most == 0:
        return (
            f"{gpu.title} has {gpu.memory:,} MB of memory, and a worker needs {need}; train on the processor with "
            "CUDA_VISIBLE_DEVICES=-1."
        )
    return (
        f"{gpu.title} has {gpu.memory:,} MB of memory, too little for {workers} workers, each of which needs {need}; "
        f"let at most {most} share it, with --workers or --workers-per-gpu."
    )


def busy_gpus(gpus: Sequence[Gpu], used: dict[str, int], workers: int) -> list[str]:
    """A sentence for each GPU on which other processes hold memory before the workers of a search start.

    Args:
        used: the memory that processes hold now, by the UUID of the GPU.
        workers: the number of workers that are to share each GPU.
    """
    return [
        f"Other processes hold {used[gpu.uuid]:,} of the {gpu.memory:,} MB of {gpu.title}, on which "
        f"{'one worker is' if workers == 1 else f'{workers} workers are'} to train; if another search uses it, give "
        "each fewer workers with --workers, or children may run out of memory."
        for gpu in gpus
        if gpu.uuid is not None and gpu.memory is not None and used.get(gpu.uuid, 0) > IDLE_MB
    ]
