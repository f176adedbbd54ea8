"""This machine: its processor and packages, on which last bits depend, and the device of this process."""

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
    """Ties this process to its device, before TensorFlow is imported: the policy is small and leaves GPUs to children.

    Without workers, children train here too, on the first GPU that there is.
    """
    gpus = visible_gpus()
    gpu = ",".join(gpus) if policy_device == "gpu" and gpus else None
    if workers == 0 and gpus:
        gpu = gpus[0]
    os.environ.update(environment(threads, gpu))


def machine() -> dict[str, Any]:
    """What children's last bits can depend on beside the versions."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def other_surroundings(store: Store, search: Search) -> list[str]:
    """How this machine and its packages differ from those of the last run: children may then not be bit-equal."""
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
    """Of Python and the packages whose releases can change results."""
    found = {"python": platform.python_version()}
    from automl import __version__

    found["automl"] = __version__  # not from metadata: the distribution has another name
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
