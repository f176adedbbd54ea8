"""Records which of the user's files may run: those that this user started or approved on this machine."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from pathlib import Path

from automl.child_trainers.user_files import UserFile, UserFileError


def approve(file: UserFile) -> None:
    """Records that this user ran this text from this path.

    If the folder cannot be written, nothing is recorded, and the next `resume` asks again.
    """
    entry = [file.path, file.sha256]
    if entry in _entries():
        return
    try:
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two searches that start at once must not lose each other's entry
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps([*_entries(), entry], indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError:
        return
    finally:
        os.close(folder)


def check_approved(file: UserFile, *, name: str, flag: str) -> None:
    """Raises UserFileError if this user has not run or approved this text from this path on this machine."""
    if [file.path, file.sha256] not in _entries():
        reference = shlex.quote(f"{file.path}:{file.attribute}")  # a store may contain any path
        raise UserFileError(
            f"The search {name!r} runs your file {file.path}, which was not started or approved by you on this "
            f"machine; read it, then approve it with: automl resume {shlex.quote(name)} {flag} {reference}"
        )


def _entries() -> list[list[str]]:
    try:
        entries = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries if isinstance(entries, list) else []


def _path() -> Path:
    import platformdirs

    folder = Path(platformdirs.user_config_dir("automl"))
    if not folder.is_absolute():  # there is no home folder; the path would be a folder named ~ in the current one
        raise FileNotFoundError("there is no home folder")
    return folder / "approved.json"
