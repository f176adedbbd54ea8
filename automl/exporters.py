"""The formats in which a child can be exported. A new one is a function and its line in EXPORTERS."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from automl.child_views import child_json
from automl.model_files import read_tflite, write_onnx, write_saved_model, write_tflite
from automl.search_spaces.drawing import layers_dot
from automl.search_spaces.spec import HasGraph, spec_to_json
from automl.stored import load_experiment, load_space, recorded_child
from automl.trained_model import ExportError, ExportRequest
from automl.usage import Usage

if TYPE_CHECKING:
    pass


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an exporter returns about the file that it wrote.

    Attributes:
        note: what the file is, and whether it was checked (one sentence).
        usage: the model's inputs and outputs, and how to load it; None for a file that is no model.
    """

    note: str
    usage: Usage | None = None


def _export_json(request: ExportRequest, path: Path) -> ExportResult:
    store, search, child = request.store, request.search, request.child
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
    return ExportResult("the child as it is stored")


def _export_python(request: ExportRequest, path: Path) -> ExportResult:
    search = request.search
    experiment = load_experiment(search, store=request.store, data=request.data)
    spec = recorded_child(request.store, search, experiment.space, request.child).spec
    source = experiment.task.source(spec, request.child.metrics or {})
    if source is None:
        raise ExportError(
            f"Children of {search.name!r} cannot be written as Python: that takes a space whose specs have a method "
            "source(input_shape, num_classes, preprocessing), and a task with images. Export them as json."
        )
    path.write_text(source.text, encoding="utf-8")
    return ExportResult(source.description)


def _export_dot(request: ExportRequest, path: Path) -> ExportResult:
    path.write_text(_dot(request), encoding="utf-8")
    return ExportResult("a graph for Graphviz")


def _export_svg(request: ExportRequest, path: Path) -> ExportResult:
    graph = _dot(request)
    command = shutil.which("dot")
    if command is None:
        raise ExportError("A drawing needs Graphviz: install its program dot, or export the graph as dot.")
    drawn = subprocess.run([command, "-Tsvg"], input=graph, capture_output=True, encoding="utf-8", check=False)
    if drawn.returncode != 0:
        reason = drawn.stderr.strip().partition("\n")[0]
        raise ExportError(f"Graphviz cannot draw it ({reason}); export the graph as dot.")
    path.write_text(drawn.stdout, encoding="utf-8")
    return ExportResult("a drawing")


def _dot(request: ExportRequest) -> str:
    """The child as a graph. Raises ExportError."""
    spec = recorded_child(request.store, request.search, load_space(request.search), request.child).spec
    drawn = spec.dot() if isinstance(spec, HasGraph) else layers_dot(spec_to_json(spec))
    if drawn is None:
        raise ExportError(
            f"Children of {request.search.name!r} cannot be drawn: that takes specs with a method dot(), or with a "
            "list or dict of layers whose 'inputs' are numbers or names of layers. Export them as json."
        )
    return str(drawn)


def _export_keras(request: ExportRequest, path: Path) -> ExportResult:
    import keras

    trained = request.trained()
    trained.model.save(path)
    try:
        loaded = keras.models.load_model(path)
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ExportError(
            f"Keras cannot load the file that it wrote ({reason}): layers of your own need "
            "@keras.saving.register_keras_serializable() and get_config; or export it as savedmodel."
        ) from error
    return ExportResult(trained.check(loaded), trained.usage("keras"))


def _export_savedmodel(request: ExportRequest, path: Path) -> ExportResult:
    import tensorflow as tf

    trained = request.trained()
    write_saved_model(trained.model, path)
    loaded = tf.saved_model.load(path)  # a reference to it keeps its variables
    return ExportResult(trained.check(loaded.serve), trained.usage("savedmodel"))


def _export_tflite(request: ExportRequest, path: Path) -> ExportResult:
    trained = request.trained(numeric_format="tflite")
    write_tflite(trained.model, path)
    run = read_tflite(path)
    (given,), (wanted_output,) = ([tensor.name for tensor in trained.model.inputs], trained.model.output_names)
    return ExportResult(trained.check(lambda images: run(**{given: images})[wanted_output]), trained.usage("tflite"))


def _export_onnx(request: ExportRequest, path: Path) -> ExportResult:
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("tf2onnx") is None:
        raise ExportError("ONNX needs two more packages: pip install 'automl-reinforce[onnx]'")
    import onnxruntime

    trained = request.trained(numeric_format="onnx")
    write_onnx(trained.model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), outputs = ([tensor.name for tensor in trained.model.inputs], trained.model.output_names)
    return ExportResult(trained.check(lambda images: session.run(outputs, {given: images})[0]), trained.usage("onnx"))


@dataclasses.dataclass(frozen=True)
class Exporter:
    """A format of `automl export`.

    Attributes:
        write: writes a child to a path that does not exist. Raises ExportError.
        ending: of that path; "" for a folder.
    """

    write: Callable[[ExportRequest, Path], ExportResult]
    ending: str


EXPORTERS: dict[str, Exporter] = {
    "json": Exporter(_export_json, ".json"),
    "python": Exporter(_export_python, ".py"),
    "svg": Exporter(_export_svg, ".svg"),
    "dot": Exporter(_export_dot, ".dot"),
    "keras": Exporter(_export_keras, ".keras"),
    "savedmodel": Exporter(_export_savedmodel, ""),
    "tflite": Exporter(_export_tflite, ".tflite"),
    "onnx": Exporter(_export_onnx, ".onnx"),
}
