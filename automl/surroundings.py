"""What a search needs outside its store: the folder in which the user's code runs, and its data."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from automl.child_trainers.experiment import SESSION
from automl.child_trainers.registry import FILE_TASKS, kind_of, path_of
from automl.db.store import Store


class SurroundingsError(ValueError):
    """The folder or the data of a search have moved. The message is one sentence with the way out."""


def check_workdir(given: str) -> str:
    """The absolute path of the folder of --workdir. Raises SurroundingsError if it is not a folder."""
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise SurroundingsError(f"--workdir is {given!r}, which is not a folder; name one that exists.")
    return str(path)


def runs_code_of_user(settings: Mapping[str, Any]) -> bool:
    """Whether a search runs the user's own code, which may depend on the current folder."""
    parts = [settings[group] for group in ("space", "task", "controller")]
    return any(part.get("file") is not None or part["name"].startswith(SESSION) for part in parts)


def workdir_of(settings: Mapping[str, Any]) -> str | None:
    """The folder in which a search's code runs; None for the current folder.

    0.1.0 stored no folder. Its searches run in the folder of the user's file, where most of them were started.
    """
    if not runs_code_of_user(settings):
        return None
    stored: str | None = settings.get("workdir")
    if stored is not None:
        return stored
    files = [settings[group]["file"] for group in ("task", "space") if settings[group]["file"] is not None]
    return str(Path(files[0]["path"]).parent) if files else None


def workdir_notice(settings: Mapping[str, Any]) -> str | None:
    """A notice if the folder of the search's code is not the current one, else None."""
    folder = workdir_of(settings)
    if folder is None or _is_here(folder):
        return None
    why = "where the search began" if settings.get("workdir") is not None else "the folder of your file"
    return f"Tasks run in {folder}, {why}; --workdir names another"


def current_folder() -> str | None:
    """The current folder; None if it was deleted."""
    with contextlib.suppress(OSError):
        return os.getcwd()
    return None


def enter(folder: str | None) -> None:
    """Makes a folder the current one; None changes nothing.

    Raises:
        SurroundingsError: the folder does not exist, or cannot be entered.
    """
    if folder is None or _is_here(folder):
        return
    try:
        os.chdir(folder)
    except OSError as error:
        raise SurroundingsError(
            f"{folder}, the folder that the tasks of this search run in, cannot be entered ({error.strerror}); name "
            "another with --workdir DIR."
        ) from None


@contextlib.contextmanager
def working_in(folder: str | None) -> Iterator[None]:
    """A context in which a folder is the current one; see `enter`.

    In an interactive session, `sys.path` contains "", the current folder. The context replaces it by the session's
    folder, so that nothing is imported by accident from a folder that only a store names.
    """
    here = current_folder()
    if here is not None:
        sys.path[:] = [here if entry == "" else entry for entry in sys.path]
    try:
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)  # by descriptor, since it may be renamed in the meantime
    except OSError:
        before = None
    try:
        enter(folder)
        yield
    finally:
        if before is not None:
            os.fchdir(before)
            os.close(before)
        sys.path[:] = ["" if entry is here else entry for entry in sys.path]


def check_runs_code(settings: Mapping[str, Any]) -> None:
    """Raises ValueError if --workdir has no effect."""
    if not runs_code_of_user(settings):
        raise ValueError("--workdir has no effect on a search that runs no code of yours; drop it.")


def with_workdir(settings: Mapping[str, Any], given: str | None) -> dict[str, Any]:
    """Stored settings with the folder of --workdir. Raises ValueError if it has no effect."""
    if given is None:
        return dict(settings)
    check_runs_code(settings)
    return {**settings, "workdir": check_workdir(given)}


def with_data(settings: Mapping[str, Any], given: str | None, *, flag: str = "--data") -> dict[str, Any]:
    """Stored settings with the present path of their data: `npz:PATH`, `text:PATH`, or only the path.

    The data are compared with the stored fingerprint when they are read.

    Raises:
        ValueError: the search uses no data of the user's, or data of another kind.
    """
    if given is None:
        return dict(settings)
    task = settings["task"]
    kind = kind_of(task["name"])
    if path_of(task["name"]) is None:
        raise ValueError(f"The task {task['name']} reads no data of yours; drop {flag}.")
    other = next((other for other in FILE_TASKS if given.startswith(f"{other}:") and other != kind), None)
    if other is not None:
        raise ValueError(f"The data of this search are {kind}: and not {other}:; name them with {flag} {kind}:PATH.")
    path = Path(given.removeprefix(f"{kind}:")).expanduser().absolute()
    if not os.path.isfile(path):
        raise SurroundingsError(f"{flag} names {path}, which is not a file; say where the data of this search lie now.")
    return {**settings, "task": {**task, "name": f"{kind}:{path}"}}


def arrays_path(store: Store, name: str) -> Path:
    """The file of the arrays that a search was started with: beside a SQLite store, else in the current folder."""
    folder = Path("automl.data").absolute() if store.file is None else store.file.with_name(f"{store.file.name}.data")
    return folder / f"{name}.npz"


def with_kept_arrays(store: Store, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with the new path of arrays that were moved together with the store."""
    task = settings["task"]
    path = arrays_path(store, name)
    recorded = Path(task["name"].removeprefix("npz:"))
    kept = kind_of(task["name"]) == "npz" and (recorded.parent.name, recorded.name) == (path.parent.name, path.name)
    if not kept or os.path.isfile(recorded) or not os.path.isfile(path):
        return dict(settings)
    return {**settings, "task": {**task, "name": f"npz:{path}"}}


def _is_here(folder: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(folder, ".")
    return False
