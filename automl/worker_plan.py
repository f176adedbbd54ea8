"""The number of workers of a search, and how many of them share a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from automl.child_trainers.devices import default_workers, memory_share, num_cores
from automl.child_trainers.gpu_sharing import Sharing, automatic_sharing, memory_limit, workers_on_a_gpu
from automl.child_trainers.gpus import visible_gpus
from automl.child_trainers.task import Requirements, Task
from automl.settings.schema import SearchConfig
from automl.wording import counted


class WorkerPlan(NamedTuple):
    """The workers of a new search.

    Attributes:
        workers: their number; 0 trains in this process.
        per_gpu: the number that share a GPU.
        reason: why `--workers-per-gpu auto` chose this number, a phrase; None without GPUs, or if the user gave one.
    """

    workers: int
    per_gpu: int
    reason: str | None


def plan_workers(config: SearchConfig, task_name: str, task: Task) -> WorkerPlan:
    """Plans the workers of a new search.

    Raises:
        ValueError: --workers-per-gpu has no effect, since there is no GPU.
    """
    groups = len(visible_gpus()) // task.requirements.devices
    given = config.workers_per_gpu if isinstance(config.workers_per_gpu, int) else None
    if groups == 0:
        if given is not None and given > 1:
            raise ValueError(
                f"--workers-per-gpu is {given}, but this process sees no GPU (automl doctor says "
                "why); drop it, or set the number of workers with --workers."
            )
        workers = default_workers() if config.workers is None else config.workers
        return WorkerPlan(_at_most(workers, config, task.requirements), 1, None)
    sharing = _automatic(config, task_name, task, groups)
    per_gpu, reason = sharing if given is None else (given, None)
    workers = groups * per_gpu if config.workers is None else config.workers
    return WorkerPlan(_at_most(workers, config, task.requirements), per_gpu, reason)


def _automatic(config: SearchConfig, task_name: str, task: Task, groups: int) -> Sharing:
    needs = task.requirements
    if needs.devices > 1:
        return Sharing(1, f"a child has {needs.devices} GPUs")
    if needs.exclusive:
        return Sharing(1, f"a child of the task {task_name} needs a GPU to itself")
    if config.workers is not None:
        return Sharing(workers_on_a_gpu(config.workers, groups), f"--workers is {config.workers}")
    if task.population > 1:
        return Sharing(1, f"{task.population} children are trained side by side")
    if not task.uses_tensorflow:
        return Sharing(1, f"it is not known what a child of the task {task_name} needs of a GPU")
    return automatic_sharing(visible_gpus(), threads=config.threads, cores=num_cores(), host_memory=memory_share(1))


def _at_most(workers: int, config: SearchConfig, requirements: Requirements) -> int:
    most = most_workers(requirements)
    return workers if most is None or config.workers is not None else min(workers, most)


def most_workers(requirements: Requirements) -> int | None:
    """How many workers may train children of these requirements at the same time; None for any number."""
    return max(1, len(visible_gpus()) // requirements.devices) if requirements.exclusive else None


def sharing_workers(settings: Mapping[str, Any], workers: int, groups: int) -> int:
    """The number of workers among which the memory of a GPU is divided.

    A number that the user gave holds even if fewer workers run: another search may have the rest of the GPU. A number
    of `auto` was that of another run, perhaps on another machine.

    Args:
        groups: the number of GPUs, or of groups of GPUs that train one child together.
    """
    actual = workers_on_a_gpu(workers, groups) if groups else 1
    return actual if settings["workers_per_gpu_reason"] is not None else max(actual, settings["workers_per_gpu"])


def check_workers(settings: Mapping[str, Any], task: Task, workers: int) -> None:
    """Raises ValueError if children that need their devices to themselves would have to share them, or if a GPU has
    too little memory for the workers that share it."""
    requirements, name = task.requirements, settings["task"]["name"]
    most = most_workers(requirements)
    if most is not None and settings["workers_per_gpu"] > 1:
        raise ValueError(f"A child of the task {name} needs a GPU to itself; drop --workers-per-gpu.")
    if most is not None and workers > most:
        raise ValueError(
            f"--workers is {workers}, and children of the task {name} need their devices to themselves; use "
            f"--workers {most}."
        )
    worker_gpu_memory(settings, task, workers)


def worker_gpu_memory(settings: Mapping[str, Any], task: Task, workers: int) -> int | None:
    """The memory in MB that TensorFlow may allocate on a GPU in each worker; None for no limit.

    A task of the user may not use TensorFlow at all, so it has a limit only if the user gave --workers-per-gpu.

    Raises:
        ValueError: a GPU has too little memory.
    """
    groups = len(visible_gpus()) // task.requirements.devices
    given = settings["workers_per_gpu"] if settings["workers_per_gpu_reason"] is None else 1
    if groups == 0 or not (task.uses_tensorflow or given > 1):
        return None
    return memory_limit(visible_gpus(), sharing_workers(settings, workers, groups))


def sharing_text(settings: Mapping[str, Any]) -> str | None:
    """How many workers share a GPU and why, if `--workers-per-gpu auto` chose that; None otherwise."""
    reason = settings["workers_per_gpu_reason"]
    return None if reason is None else f"{counted(settings['workers_per_gpu'], 'worker')} on a GPU: {reason}"
