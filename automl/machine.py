"""Describes this machine and its packages, which affect results bit by bit, and assigns this process its device."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import environment
from automl.child_trainers.gpus import visible_gpus
from automl.db.records import (
    Search,
)
from automl.db.store import Store

VERSIONED = ("tensorflow", "keras", "numpy", "sqlalchemy")


def prepare_process(threads: int, workers: int, policy_device: str) -> None:
    """Chooses the device of this process by environment variables. Call it before TensorFlow is imported.

    The policy is small, so it uses a GPU only if `policy_device` is "gpu". Without workers, children train in this
    process too, on the first GPU if there is one.

    Warns:
        RuntimeWarning: children are to train in this process, but TensorFlow already computes here with another number
            of threads. It cannot be changed any more.
    """
    if workers == 0:
        _check_started_threads(threads)
    gpus = [gpu.value for gpu in visible_gpus()]
    gpu = ",".join(gpus) if policy_device == "gpu" and gpus else None
    if workers == 0 and gpus:
        gpu = gpus[0]
    os.environ.update(environment(threads, gpu))


def _check_started_threads(threads: int) -> None:
    if (tensorflow := sys.modules.get("tensorflow")) is None:
        return
    settings = tensorflow.config.threading
    try:
        settings.set_intra_op_parallelism_threads(threads)
        settings.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # TensorFlow has computed something: with its own setting, or else with the environment's
        given = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
        started = settings.get_intra_op_parallelism_threads() or given or "all"
        if started != str(threads):
            warnings.warn(
                f"TensorFlow already computes in this process with {started} threads, so children train with them and "
                f"not with threads={threads}, and their last digits may differ from those of another run; call "
                "automl.search before TensorFlow computes, or with workers=1.",
                RuntimeWarning,
                stacklevel=2,
            )


def machine() -> dict[str, Any]:
    """The properties of this machine that can change the last bits of results, as stored in a segment."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def other_surroundings(store: Store, search: Search) -> list[str]:
    """How this machine and its packages differ from those of the last run; children may then not be bit-equal."""
    segments = store.segments(search.id)
    if not segments:
        return []
    last, here = segments[-1], versions()
    changed = [
        f"{name} {before} before, {here[name]} now"
        for name, before in last.versions.items()
        if name in here and here[name] != before
    ]
    before, now = last.machine.get("processor"), machine()["processor"]
    return changed if before == now else [*changed, f"processor {before} before, {now} now"]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """The versions of Python, automl and the packages whose releases can change results."""
    packages = {"python": platform.python_version()}
    from automl import __version__

    packages["automl"] = __version__  # not from metadata: the distribution has another name
    for package in VERSIONED:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            packages[package] = "absent"
    return packages
