"""Writes a child to a file, whole or not at all, and checks that an exported model is the one that was measured."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.child_trainers.data.dataset import DataError
from automl.db.records import Child, Search, State, StoreError, Training
from automl.db.store import Store, training_kind
from automl.model_files import read_tflite, write_onnx, write_saved_model, write_tflite
from automl.search_spaces.drawing import layers_dot
from automl.search_spaces.names import validate_choice
from automl.search_spaces.walk import spec_to_json
from automl.status import child_json
from automl.stored import in_workdir, load_experiment, load_space, recorded_child
from automl.usage import Usage, classes_module, own_classes

if TYPE_CHECKING:
    import keras


class ExportError(ValueError):
    """The child cannot be exported so; the message is one sentence with the way out."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """The file that was written, a note on it (one sentence), and lines on how to use it."""

    path: Path
    number: int
    note: str
    use: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Written:
    """What an exporter wrote.

    Attributes:
        note: what it is, and whether it was checked (one sentence).
        usage: its inputs and outputs, and how to load it.
    """

    note: str
    usage: Usage | None = None


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
    """Exports the best child, or the one of this number.

    Args:
        source: whose weights: `search`, `train` (the best training after it), or None for that if there is one.
        data: where the search's data are now, as `npz:PATH` or `text:PATH`.
        workdir: the folder in which the user's code runs.

    Raises:
        ExportError: there is no such child, it has no weights or no such form, or the file exists (without `force`).
        ValueError: the format is unknown.
    """
    write = EXPORTERS[validate_choice("format", format, EXPORTERS)]
    if source is not None:
        validate_choice("source of weights", source, ["search", "train"])
    if path.is_symlink() or (path.exists() and not force):
        kind = "a link" if path.is_symlink() else "there already"
        raise ExportError(f"{path} is {kind}; choose another path{'' if path.is_symlink() else ' or add --force'}.")
    if path.is_dir():
        raise ExportError(f"{path} is a folder; name a file in it, or a folder that is not there yet for savedmodel.")
    if format == "savedmodel" and path.exists():
        raise ExportError(f"{path} is a file, and savedmodel writes a folder; choose another path.")
    if not path.parent.is_dir():
        raise ExportError(f"The folder {path.parent} does not exist; create it first.")
    search = store.search(name)
    wanted = Wanted(store, search, find_child(store, search, number), source, data)
    # A folder of its own beside the target: Keras wants the ending `.keras`, and a rename within one disk is atomic.
    with tempfile.TemporaryDirectory(prefix=".automl-", dir=path.parent) as folder:
        partial = (Path(folder) / f"export{EXTENSIONS[format]}").absolute()
        with in_workdir(search, workdir):
            written = write(wanted, partial)
        pairs = [(partial, path)]
        if written.usage is not None and written.usage.classes:
            companion = Path(folder) / "companion.py"
            companion.write_text(written.usage.classes, encoding="utf-8")
            pairs.insert(0, (companion, path.with_name(f"{classes_module(path)}.py")))
        for made, target in pairs:
            if made.is_file():
                with made.open("rb") as file:
                    os.fsync(file.fileno())
            same = made.is_file() and target.is_file() and made.read_bytes() == target.read_bytes()
            if target.is_symlink():
                raise ExportError(f"{target} is a link; choose another path.")
            if target.exists() and not same and target != path and _first_line(target) != _first_line(made):
                raise ExportError(f"{target} is there and was not exported; choose another name than {path.name}.")
            if target.exists() and not same and not force:
                raise ExportError(f"{target} is there already; choose another path or add --force.")
        for made, target in pairs:
            made.replace(target)
    use = () if written.usage is None else written.usage.lines(path)
    return Exported(path, wanted.child.number, written.note, use)


def _first_line(path: Path) -> bytes:
    """What tells a file that was exported from one that the user wrote."""
    with path.open("rb") as file:
        return file.readline()


def model_of(store: Store, search: Search, child: Child) -> keras.Model:
    """The child's Keras model with its best stored weights, from raw input to logits. Raises ExportError."""
    with in_workdir(search):
        return Wanted(store, search, child, None).trained().model


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A child to export.

    Attributes:
        source: whose weights: `search`, `train`, or None for those of `train` if there are any.
        data: where the search's data are now; None if they have not moved.
    """

    store: Store
    search: Search
    child: Child
    source: str | None
    data: str | None = None

    def trained(self, *, numbers_for: str | None = None) -> TrainedModel:
        """The model with its weights; `numbers_for` is a format that knows no texts. Raises ExportError, StoreError."""
        child = self.child
        training = self._best_training()
        if training is None:
            kind, metrics, changes = "search", child.metrics or {}, {}
        else:
            kind = training_kind(training.recipe_hash, training.seed)
            metrics, changes = training.metrics, training.recipe
        experiment = load_experiment(self.search, store=self.store, data=self.data, **changes)
        if self.data is not None:
            experiment.task.prepare()  # others than the search's are refused
        if not hasattr(experiment.task, "model"):
            raise ExportError(f"The task {self.search.task} keeps no models; export its children as json.")
        if numbers_for is not None and experiment.task.reads_words:
            raise ExportError(
                f"The model reads words, which {numbers_for} cannot look up; export it as savedmodel or keras."
            )
        weights = self.store.weights(child.id, kind)
        if weights is None:
            raise ExportError(
                f"No weights are stored for child {child.number} of {self.search.name!r}: a search keeps those of its "
                f"best {self.search.settings['keep']} children (--keep). Train it again with: automl train "
                f"{self.search.name} --child {child.number}"
            )
        spec = recorded_child(self.store, self.search, experiment.space, child).spec
        try:
            model = experiment.task.model(spec, weights)
        except DataError as error:
            raise ExportError(
                f"The model of child {child.number} cannot be built without the data of the search: {error}"
            ) from error
        except ValueError as error:
            raise StoreError(f"The stored weights do not fit child {child.number}: {error}") from error
        where = "the search" if training is None else f"training again with seed {training.seed}"
        return TrainedModel(model, spec, experiment.task, metrics[experiment.task.metric], where)

    def _best_training(self) -> Training | None:
        trainings = [] if self.source == "search" else self.store.trainings(self.child.id)
        if self.source == "train" and not trainings:
            raise ExportError(
                f"Child {self.child.number} of {self.search.name!r} was not trained again; do so with: automl train "
                f"{self.search.name} --child {self.child.number}"
            )
        return max(trainings, key=lambda training: training.reward, default=None)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its weights, and the task's metric that was measured where these come from."""

    model: keras.Model
    spec: Any
    task: Any
    stored: float
    where: str

    def usage(self, format: str) -> Usage:
        """How to use what was written of it."""
        own = own_classes(self.model)
        named = [kind for kind in own if kind.__name__ != "TreeCell"]
        classes = self.task.source(self.spec) if format == "keras" and len(named) < len(own) else ""
        return Usage(format, self.model, self.task.columns(), classes, tuple(named))

    def check(self, exported: Callable[..., Any]) -> str:
        """Runs what was exported, from raw inputs to logits, on the validation data. Raises ExportError."""
        metric = self.task.metric.replace("val_", "validation ")
        try:
            found = self.task.validate(exported, self.spec)[self.task.metric]
        except DataError as error:
            return f"its {metric} should be {self.stored:.4f}; it was not checked ({str(error).rstrip('.')})"
        if not self.task.same(found, self.stored):
            raise ExportError(
                f"The exported model has {metric} {found:.4f} where {self.stored:.4f} is stored; nothing "
                "was written. Are the data or the versions other ones than in the search?"
            )
        return f"{metric} {found:.4f}, as in {self.where} ({self.stored:.4f})"


def _export_json(wanted: Wanted, path: Path) -> Written:
    store, search, child = wanted.store, wanted.search, wanted.child
    measured = [{**point.metrics, "epoch": point.epoch} for point in store.measurements(child.id)]
    document = {
        "search": search.name,
        "space": search.space,
        "task": search.task,
        **child_json(child),
        "log_probs": child.log_probs,
        "epochs": measured,
        "trainings": [
            {"seed": run.seed, "reward": run.reward, "metrics": run.metrics, "recipe": run.recipe}
            for run in store.trainings(child.id)
        ],
    }
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Written("the child as it is stored")


def _export_python(wanted: Wanted, path: Path) -> Written:
    search = wanted.search
    experiment = load_experiment(search, store=wanted.store, data=wanted.data)
    spec = recorded_child(wanted.store, search, experiment.space, wanted.child).spec
    if hasattr(spec, "expression"):
        rate = (wanted.child.metrics or {}).get("learning_rate")  # unknown for a rule that the screening test rejected
        if not isinstance(rate, float):
            rate = None  # a user's task may use the name for anything; only a number may get into source code
        path.write_text(spec.source() if rate is None else spec.source(learning_rate=rate), encoding="utf-8")
        told = "" if rate is None else f"; its learning rate here was {rate:g}"
        return Written(f"an optimizer for Keras, as readable source{told}")
    if not hasattr(spec, "source") or not hasattr(experiment.task, "source"):
        raise ExportError(
            f"Children of {search.name!r} cannot be written as Python: that takes a space whose specs have a method "
            "source(input_shape, num_classes, preprocessing), and a task with images. Export them as json."
        )
    path.write_text(experiment.task.source(spec), encoding="utf-8")
    if experiment.task.reads_words:
        return Written(
            "the cell as a Keras layer and a language model of it, to logits, without weights, as readable source"
        )
    return Written("a Keras model from raw images to logits, without weights, as readable source")


def _export_dot(wanted: Wanted, path: Path) -> Written:
    path.write_text(_dot(wanted), encoding="utf-8")
    return Written("a graph for Graphviz")


def _export_svg(wanted: Wanted, path: Path) -> Written:
    graph = _dot(wanted)
    command = shutil.which("dot")
    if command is None:
        raise ExportError("A drawing needs Graphviz: install its program dot, or export what it draws as dot.")
    drawn = subprocess.run([command, "-Tsvg"], input=graph, capture_output=True, encoding="utf-8", check=False)
    if drawn.returncode != 0:
        reason = drawn.stderr.strip().partition("\n")[0]
        raise ExportError(f"Graphviz cannot draw it ({reason}); export what it draws as dot.")
    path.write_text(drawn.stdout, encoding="utf-8")
    return Written("a drawing")


def _dot(wanted: Wanted) -> str:
    """The child as a graph. Raises ExportError."""
    spec = recorded_child(wanted.store, wanted.search, load_space(wanted.search), wanted.child).spec
    drawn = spec.dot() if hasattr(spec, "dot") else layers_dot(spec_to_json(spec))
    if drawn is None:
        raise ExportError(
            f"Children of {wanted.search.name!r} cannot be drawn: that takes specs with a method dot(), or with a list "
            "or dict of layers whose 'inputs' are numbers or names of layers. Export them as json."
        )
    return str(drawn)


def _export_keras(wanted: Wanted, path: Path) -> Written:
    import keras

    trained = wanted.trained()
    trained.model.save(path)
    try:
        loaded = keras.models.load_model(path)
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ExportError(
            f"Keras cannot load the file that it wrote ({reason}): layers of your own need "
            "@keras.saving.register_keras_serializable() and get_config; or export it as savedmodel."
        ) from error
    return Written(trained.check(loaded), trained.usage("keras"))


def _export_savedmodel(wanted: Wanted, path: Path) -> Written:
    import tensorflow as tf

    trained = wanted.trained()
    write_saved_model(trained.model, path)
    loaded = tf.saved_model.load(path)  # its variables live as long as it does
    return Written(trained.check(loaded.serve), trained.usage("savedmodel"))


def _export_tflite(wanted: Wanted, path: Path) -> Written:
    trained = wanted.trained(numbers_for="tflite")
    write_tflite(trained.model, path)
    run = read_tflite(path)
    (given,), (wanted_output,) = ([tensor.name for tensor in trained.model.inputs], trained.model.output_names)
    return Written(trained.check(lambda images: run(**{given: images})[wanted_output]), trained.usage("tflite"))


def _export_onnx(wanted: Wanted, path: Path) -> Written:
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("tf2onnx") is None:
        raise ExportError("ONNX needs two packages more: pip install 'automl-reinforce[onnx]'")
    import onnxruntime

    trained = wanted.trained(numbers_for="onnx")
    write_onnx(trained.model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), outputs = ([tensor.name for tensor in trained.model.inputs], trained.model.output_names)
    return Written(trained.check(lambda images: session.run(outputs, {given: images})[0]), trained.usage("onnx"))


EXPORTERS: dict[str, Callable[[Wanted, Path], Written]] = {
    "json": _export_json,
    "python": _export_python,
    "svg": _export_svg,
    "dot": _export_dot,
    "keras": _export_keras,
    "savedmodel": _export_savedmodel,
    "tflite": _export_tflite,
    "onnx": _export_onnx,
}
EXTENSIONS = {
    "json": ".json",
    "python": ".py",
    "svg": ".svg",
    "dot": ".dot",
    "keras": ".keras",
    "savedmodel": "",
    "tflite": ".tflite",
    "onnx": ".onnx",
}


def find_child(store: Store, search: Search, number: int | None) -> Child:
    """The trained child of this number, or the best. Raises ExportError."""
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
