"""Writes a Keras model in the formats of other programs, with the names of its inputs and outputs."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

NUMBERS = ("float32", "uint8", "float64", "float16", "int8", "int16", "uint16", "int32", "int64", "bool")
NamedFunction = Callable[..., dict[str, Any]]


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Writes a SavedModel that takes the same inputs as the Keras model.

    Its endpoint `serve` takes the model's inputs, as a list if there are several. They are numbers of any type; images
    of one channel may lack the channel axis. `serving_default` maps inputs to outputs by name. A model that reads words
    also has `vocabulary`, which returns the words of the columns of its logits.
    """
    import keras
    import tensorflow as tf

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
    core = tf.function(lambda *inputs: model(_one_or_list(inputs), training=False), input_signature=specs)

    @tf.function
    def serve(inputs: Any) -> Any:
        given = inputs if isinstance(inputs, list | tuple) else [inputs]
        return core(*(_as_input(tensor, spec) for tensor, spec in zip(given, specs, strict=True)))

    for variant in _variants(specs):
        serve.get_concrete_function(_one_or_list(variant))
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve)
    archive.add_endpoint("serving_default", _named(model, core, specs))
    if (words := vocabulary_of(model)) is not None:
        archive.add_endpoint("vocabulary", tf.function(lambda: tf.constant(words), input_signature=[]))
    archive.write_out(path, verbose=False)


def write_tflite(model: keras.Model, path: Path) -> None:
    """Writes a TensorFlow Lite model; its signature has the names of the inputs and outputs."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path(folder))
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def read_tflite(path: Path) -> NamedFunction:
    """Loads a TensorFlow Lite model as a function of named inputs, which returns outputs by name."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow warns that its interpreter will move to another package
        interpreter = tf.lite.Interpreter(model_path=str(path))
    runner: NamedFunction = interpreter.get_signature_runner()
    return runner


def write_onnx(model: keras.Model, path: Path) -> None:
    """Writes an ONNX model with one input and one output, which keep their names."""
    import onnx

    model(np.zeros((1, *model.input_shape[1:]), np.float32))  # the converter needs a model that has been called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns about NumPy
        model.export(path, format="onnx", verbose=False)
    written = onnx.load(str(path))
    (output,) = written.graph.output
    name = output.name
    (wanted,) = model.output_names
    for node in written.graph.node:
        for names in (node.input, node.output):
            names[:] = [wanted if used == name else used for used in names]
    output.name = wanted
    onnx.save(written, str(path))


def vocabulary_of(model: keras.Model) -> list[str] | None:
    """The words of the columns of the logits, if the model reads words, else None."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.StringLookup):
            return list(layer.get_vocabulary()[1:])  # the first is the unknown word, which is never predicted
    return None


def _named(model: keras.Model, core: Any, specs: Sequence[Any]) -> Any:
    import tensorflow as tf

    def serving_default(*inputs: Any) -> dict[str, Any]:
        outputs = core(*inputs)
        return dict(zip(model.output_names, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True))

    return tf.function(serving_default, input_signature=specs)


def _one_or_list(inputs: Sequence[Any]) -> Any:
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _as_input(tensor: Any, signature: Any) -> Any:
    """Converts a tensor as Keras does: casts numbers to the input's type and adds a missing last axis."""
    import tensorflow as tf

    if signature.dtype == tf.string:
        return tensor
    tensor = tf.cast(tensor, signature.dtype)
    return tensor[..., tf.newaxis] if tensor.shape.rank == signature.shape.rank - 1 else tensor


def _variants(specs: Sequence[Any]) -> list[list[Any]]:
    """The input signatures for which `serve` is traced; the first is that of the model."""
    import tensorflow as tf

    if len(specs) > 1:
        floats = [
            [tf.TensorSpec(spec.shape, dtype if spec.dtype.is_floating else spec.dtype) for spec in specs]
            for dtype in (tf.float32, tf.float64)
        ]
        return floats
    (spec,) = specs
    shapes = [spec.shape] + ([spec.shape[:-1]] if spec.shape.rank == 4 and spec.shape[-1] == 1 else [])
    return [[tf.TensorSpec(shape, dtype)] for shape in shapes for dtype in NUMBERS]
