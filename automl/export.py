"""Writes a child to a file, whole or not at all, and checks that an exported model is the one that was measured."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.approval import check_approved
from automl.settings import with_data_dir
from child_trainers.experiment import Experiment, known, make_experiment
from child_trainers.user_files import UserFile
from db.records import Child, Search, State, StoreError
from db.store import Store

if TYPE_CHECKING:
    import keras


class ExportError(ValueError):
    """The child cannot be exported so; the message is one sentence with the way out."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and what is known of it (one sentence)."""

    path: Path
    number: int
    note: str


def export_child(
    store: Store, name: str, format: str, path: Path, *, number: int | None = None, force: bool = False
) -> Exported:
    """Exports the best child, or the one of this number.

    Raises:
        ExportError: there is no such child, it has no weights or no such form, or the file exists (without `force`).
        ValueError: the format is unknown.
    """
    write = EXPORTERS[known("format", format, EXPORTERS)]
    if path.is_symlink() or (path.exists() and not force):
        kind = "a link" if path.is_symlink() else "there already"
        raise ExportError(f"{path} is {kind}; choose another path{'' if path.is_symlink() else ' or add --force'}.")
    if path.is_dir():
        raise ExportError(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise ExportError(f"The folder {path.parent} does not exist; create it first.")
    search = store.search(name)
    child = _child(store, search, number)
    # A folder of its own beside the target: Keras wants the ending `.keras`, and a rename within one disk is atomic.
    with tempfile.TemporaryDirectory(prefix=".automl-", dir=path.parent) as folder:
        partial = Path(folder) / f"export{EXTENSIONS[format]}"
        note = write(store, search, child, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if path.exists() and not force:
            raise ExportError(f"{path} is there already; choose another path or add --force.")
        partial.replace(path)
    return Exported(path, child.number, note)


def model_of(store: Store, search: Search, child: Child) -> keras.Model:
    """The child's Keras model with its stored weights, from raw input to logits. Raises ExportError."""
    return _model(store, search, child, _experiment(search))


def child_json(child: Child) -> dict[str, Any]:
    """A child as scripts read it."""
    fields = (
        "number",
        "state",
        "fault",
        "message",
        "tokens",
        "spec",
        "reward",
        "metrics",
        "params",
        "flops",
        "seconds",
        "seed",
        "batch",
        "drawn_under",
        "origin",
        "tries",
        "attempts",
        "canonical_hash",
    )
    return {name: getattr(child, name) for name in fields}


def _export_json(store: Store, search: Search, child: Child, path: Path) -> str:
    measured = [{"epoch": point.epoch, **point.metrics} for point in store.measurements(child.id)]
    document = {
        "search": search.name,
        "space": search.space,
        "task": search.task,
        **child_json(child),
        "log_probs": child.log_probs,
        "epochs": measured,
    }
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return "the child as it is stored"


def _export_python(store: Store, search: Search, child: Child, path: Path) -> str:
    experiment = _experiment(search)
    spec = experiment.space.decode(child.tokens).spec
    if not hasattr(spec, "source") or not hasattr(experiment.task, "source"):
        raise ExportError(
            f"Children of {search.name!r} cannot be written as Python: that takes a space whose specs have a method "
            "source(input_shape, num_classes, preprocessing), and a task with images. Export them as json."
        )
    path.write_text(experiment.task.source(spec), encoding="utf-8")
    return "a Keras model from raw images, without weights, as readable source"


def _export_keras(store: Store, search: Search, child: Child, path: Path) -> str:
    import keras

    experiment = _experiment(search)
    model = _model(store, search, child, experiment)
    model.save(path)
    reloaded = keras.models.load_model(path)
    stored = (child.metrics or {})["val_accuracy"]
    try:
        found = experiment.task.validate(reloaded)["val_accuracy"]  # type: ignore[attr-defined]
    except ValueError as error:
        return f"its validation accuracy should be {stored:.4f}; it was not checked ({error})"
    if not math.isclose(found, stored, abs_tol=1e-3):
        raise ExportError(
            f"The exported model has validation accuracy {found:.4f} where {stored:.4f} is stored; nothing was "
            "written. Are the data or the versions other ones than in the search?"
        )
    return f"validation accuracy {found:.4f}, as in the search ({stored:.4f})"


EXPORTERS: dict[str, Callable[[Store, Search, Child, Path], str]] = {
    "json": _export_json,
    "python": _export_python,
    "keras": _export_keras,
}
EXTENSIONS = {"json": ".json", "python": ".py", "keras": ".keras"}


def _experiment(search: Search) -> Experiment:
    """The search's space and task. A person's file runs only if they approved it on this machine."""
    settings = with_data_dir(search.settings, None)
    for group in ("space", "task"):
        if (file := UserFile.from_json(settings[group]["file"])) is not None:
            check_approved(file, name=search.name, flag=f"--{group}")
    return make_experiment(settings)


def _child(store: Store, search: Search, number: int | None) -> Child:
    if number is None:
        top = store.top(search.id, 1)
        if not top:
            raise ExportError(f"No child of {search.name!r} is trained yet; go on with: automl resume {search.name}")
        return top[0]
    found = store.children(search.id, number=number)
    if not found:
        raise ExportError(f"{search.name!r} has no child {number}; see automl top {search.name}.")
    if found[0].state != State.TRAINED:
        raise ExportError(f"Child {number} of {search.name!r} is {found[0].state}, not trained; see automl top.")
    return found[0]


def _model(store: Store, search: Search, child: Child, experiment: Experiment) -> keras.Model:
    if not hasattr(experiment.task, "model"):
        raise ExportError(f"The task {search.task} keeps no models; export its children as json.")
    weights = store.weights(child.id)
    if weights is None:
        raise ExportError(
            f"No weights are stored for child {child.number} of {search.name!r}: a search keeps those of its best "
            f"{search.settings['keep']} children (--keep)."
        )
    spec = experiment.space.decode(child.tokens).spec
    try:
        return experiment.task.model(spec, weights)
    except ValueError as error:
        raise StoreError(f"The stored weights do not fit child {child.number}: {error}") from error
