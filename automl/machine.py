"""Describes this machine and its packages, which affect results bit by bit, and assigns this process its device."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import (
    environment,
    visible_gpus,
)
from automl.db.records import (
    Search,
)
from automl.db.store import Store

VERSIONED = ("tensorflow", "keras", "numpy", "sqlalchemy")


def prepare_process(threads: int, workers: int, policy_device: str) -> None:
    """Chooses the device of this process by environment variables. Call it before TensorFlow is imported.

    The policy is small, so it uses a GPU only if `policy_device` is "gpu". Without workers, children train in this
    process too, on the first GPU if there is one.
    """
    gpus = visible_gpus()
    gpu = ",".join(gpus) if policy_device == "gpu" and gpus else None
    if workers == 0 and gpus:
        gpu = gpus[0]
    os.environ.update(environment(threads, gpu))


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
