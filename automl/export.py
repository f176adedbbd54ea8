"""Exports a child to a file, atomically; the formats are in `exporters.py`."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from automl.db.store import Store
from automl.exporters import EXPORTERS
from automl.search_spaces.names import validate_choice
from automl.stored import in_workdir
from automl.trained_model import ExportError, ExportRequest, find_child
from automl.usage import classes_module

if TYPE_CHECKING:
    pass


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported file: its path, the child's number, a note on it (one sentence), and lines on how to use it."""

    path: Path
    number: int
    note: str
    use: tuple[str, ...] = ()


def export_child(
    store: Store,
    name: str,
    format: str,
    path: Path,
    *,
    number: int | None = None,
    source: str | None = None,
    force: bool = False,
    data: str | None = None,
    workdir: str | None = None,
) -> Exported:
    """Exports the best child, or the child of this number.

    Args:
        source: the weights to export: `search`, `train` (the best training after the search), or None for `train` if
            there is such a training, otherwise `search`.
        data: the present place of the search's data, as `npz:PATH` or `text:PATH`.
        workdir: the folder in which the user's code runs.

    Raises:
        ExportError: there is no such child, it has no weights or not this format, or the file exists (without `force`).
        ValueError: the format is unknown.
    """
    exporter = EXPORTERS[validate_choice("format", format, EXPORTERS)]
    if source is not None:
        validate_choice("source of weights", source, ["search", "train"])
    if path.is_symlink() or (path.exists() and not force):
        reason = "is a link" if path.is_symlink() else "already exists"
        raise ExportError(f"{path} {reason}; choose another path{'' if path.is_symlink() else ' or add --force'}.")
    if path.is_dir():
        raise ExportError(f"{path} is a folder; name a file in it, or a new folder for savedmodel.")
    if not exporter.ending and path.exists():
        raise ExportError(f"{path} is a file, and {format} writes a folder; choose another path.")
    if not path.parent.is_dir():
        raise ExportError(f"The folder {path.parent} does not exist; create it first.")
    search = store.search(name)
    request = ExportRequest(store, search, find_child(store, search, number), source, data)
    # A temporary folder beside the target: Keras needs the ending `.keras`, and a rename within one disk is atomic.
    with tempfile.TemporaryDirectory(prefix=".automl-", dir=path.parent) as folder:
        partial = (Path(folder) / f"export{exporter.ending}").absolute()
        with in_workdir(search, workdir):
            result = exporter.write(request, partial)
        pairs = [(partial, path)]
        if result.usage is not None and result.usage.classes:
            companion = Path(folder) / "companion.py"
            companion.write_text(result.usage.classes, encoding="utf-8")
            pairs.insert(0, (companion, path.with_name(f"{classes_module(path)}.py")))
        for made, target in pairs:
            if made.is_file():
                with made.open("rb") as file:
                    os.fsync(file.fileno())
            same = made.is_file() and target.is_file() and made.read_bytes() == target.read_bytes()
            if target.is_symlink():
                raise ExportError(f"{target} is a link; choose another path.")
            if target.exists() and not same and target != path and _first_line(target) != _first_line(made):
                raise ExportError(
                    f"{target} already exists and was not exported; choose another name than {path.name}."
                )
            if target.exists() and not same and not force:
                raise ExportError(f"{target} already exists; choose another path or add --force.")
        for made, target in pairs:
            made.replace(target)
    use = () if result.usage is None else result.usage.lines(path)
    return Exported(path, request.child.number, result.note, use)


def _first_line(path: Path) -> bytes:
    """The first line of a file, which distinguishes an exported file from one that the user wrote."""
    with path.open("rb") as file:
        return file.readline()
