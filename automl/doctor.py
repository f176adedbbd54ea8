"""Checks the installation, the data and the store, and says what a resume of each search would do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from pathlib import Path
from typing import Any

from automl.child_trainers.devices import default_workers, memory_share, num_cores
from automl.child_trainers.gpu_sharing import automatic_sharing
from automl.child_trainers.gpus import listed_gpus, visible_gpus
from automl.db.owner import Owner
from automl.db.records import SearchState, State, StoreError
from automl.db.store import Store
from automl.findings import Finding
from automl.gpu_checks import gpu_findings
from automl.machine import versions
from automl.status import is_interrupted
from automl.wording import counted


def examine(address: str, data_dir: str | None) -> list[Finding]:
    """Checks the installation, the devices, the data, the store and every search in it. Changes nothing."""
    findings = [_installation(), _devices(), *gpu_findings(), _data(data_dir)]
    try:
        store = Store(address, readonly=True)
    except StoreError as error:
        return [*findings, Finding("store", False, str(error), "name another with --store")]
    with contextlib.closing(store):
        try:
            store.check()
        except StoreError as error:
            return [*findings, Finding("store", False, str(error), "restore it from a backup")]
        findings.append(Finding("store", True, f"{store} can be read and is not damaged"))
        searches, errors = store.readable_searches()
        findings += [_search(store, search.name) for search in searches]
        return findings + [Finding(f"search {name}", False, str(error)) for name, error in errors.items()]


def as_json(finding: Finding) -> dict[str, Any]:
    return dataclasses.asdict(finding)


def _installation() -> Finding:
    packages = versions()
    text = ", ".join(f"{name} {version}" for name, version in packages.items())
    absent = [name for name, version in packages.items() if version == "absent"]
    if absent:
        return Finding("installation", False, text, f"install {', '.join(absent)}")
    return Finding("installation", True, text)


def _devices() -> Finding:
    gpus = visible_gpus()
    cores = counted(os.cpu_count() or 1, "core")
    if not gpus:
        why = f" ({failure})" if (failure := listed_gpus().failure) is not None else ""
        return Finding("devices", True, f"no GPU{why}, {cores}; a search starts {counted(default_workers(), 'worker')}")
    sharing = automatic_sharing(gpus, threads=1, cores=num_cores(), host_memory=memory_share(1))
    started = f"a search starts {counted(sharing.workers, 'worker')} on each GPU ({sharing.reason})"
    return Finding("devices", True, f"{counted(len(gpus), 'GPU')}, {cores}; {started}")


def _data(data_dir: str | None) -> Finding:
    given = data_dir or os.environ.get("AUTOML_DATA")
    if given is None:
        return Finding("data", True, "no --data-dir or AUTOML_DATA; the task digits needs none, cifar10 is downloaded")
    folders = ("cifar-10-batches-py", "cifar-10-batches-bin")
    path = Path(given)
    if not path.is_dir():
        return Finding("data", False, f"{given} is not a folder", "name the folder that holds cifar-10-batches-py")
    present = [name for name in folders if (path / name).is_dir()]
    return Finding("data", True, f"{given} holds {', '.join(present) or 'no CIFAR-10 (it would be downloaded there)'}")


def _search(store: Store, name: str) -> Finding:
    search = store.search(name)
    counts = store.counts(search.id)
    by_state = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no children"
    subject = f"search {name}"
    resume = f"automl resume {shlex.quote(name)}"
    owner = None if search.owner is None else Owner.from_json(search.owner)
    if owner is not None and not is_interrupted(store, search):
        return Finding(subject, True, f"running in {owner}: {by_state}")
    if owner is not None:
        ended = "died" if owner.is_gone() else "has not renewed its lease"
        waiting = counted(counts[State.RUNNING], "running child", "running children")
        return Finding(
            subject,
            False,
            f"interrupted, its coordinator ({owner}) {ended}: {by_state}",
            f"{resume} takes it over at once and makes {waiting} ready again",
        )
    if search.state == SearchState.PAUSED:
        cause = f" ({search.cause})" if search.cause else ""
        goal = "" if search.budget is None else f" to {counted(search.budget, 'child', 'children')}"
        return Finding(subject, True, f"paused{cause}: {by_state}; {resume} continues it{goal}")
    return Finding(subject, True, f"{search.state}: {by_state}; {resume} --children N continues it")
