"""Describes the inputs and outputs of an exported model, and the code that loads it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

INDENT = "    "


@dataclasses.dataclass(frozen=True)
class Usage:
    """How to use an exported model.

    Attributes:
        format: the format of the file.
        model: the exported model.
        columns: the meaning of the columns of its logits, as part of a sentence; "" if it is not known.
        classes: source code of classes that the file needs, which is written beside it; "" for none.
        own: the user's classes that the file needs.
    """

    format: str
    model: keras.Model
    columns: str
    classes: str = ""
    own: tuple[type, ...] = ()

    def lines(self, path: Path) -> tuple[str, ...]:
        """A sentence on inputs and outputs, and the Python code that loads the model."""
        needs_files = self.format == "keras" and (self.classes or self.own)
        name = path.name if needs_files else str(path)
        where = f", in the folder {path.parent}," if needs_files and path.parent != Path() else ""
        return (self._sentence(), f"Load it{where} with:", *(INDENT + line for line in self._code(path, name)))

    def _sentence(self) -> str:
        first, *others = self.model.inputs
        shape = _shape(self.model.outputs[0].shape)
        taken = f"It takes {first.name} {_shape(first.shape)}"
        if self.format in ("tflite", "onnx"):
            taken += " as float32"
        if others:
            taken += f" and the states {', '.join(tensor.name for tensor in others)}, zeros at first"
        given = f"gives {self.model.output_names[0]} {shape}"
        if others:
            given += f" and the next states {', '.join(self.model.output_names[1:])}"
        words = ""
        if others and self.format == "keras":
            words = ", as in model.get_layer('vocabulary').get_vocabulary()[1:]"
        elif others:
            words = ", as in model.vocabulary()"
        columns = f"; {self.columns}" if self.columns else ""
        return f"{taken} and {given}, not probabilities (those are softmax(logits)){columns}{words}."

    def _code(self, path: Path, name: str) -> tuple[str, ...]:
        if self.format == "keras":
            modules = ["keras"]
            if self.classes:
                modules.append(classes_module(path))
            modules += sorted({_module_of(kind) for kind in self.own})
            return f"import {', '.join(modules)}", f"model = keras.models.load_model({name!r})"
        first = self.model.inputs[0].name
        output = self.model.output_names[0]
        if self.format == "savedmodel":
            call = "words, *states" if len(self.model.inputs) > 1 else ""
            inputs = f"[{call}]" if call else first
            return (
                "import tensorflow as tf",
                f"model = tf.saved_model.load({name!r})  # then model.serve({inputs})",
            )
        if self.format == "tflite":
            return (
                "import tensorflow as tf",
                f"model = tf.lite.Interpreter({name!r}).get_signature_runner()  # then model({first}=…)[{output!r}]",
            )
        return (
            "import onnxruntime",
            f"model = onnxruntime.InferenceSession({name!r})  # then model.run([{output!r}], {{{first!r}: …}})",
        )


def own_classes(model: keras.Model) -> list[type]:
    """The classes of a model's layers that are not part of Keras, each once."""
    kinds = {type(layer): None for layer in model._flatten_layers()}
    return [kind for kind in kinds if kind.__module__.partition(".")[0] != "keras"]


def classes_module(path: Path) -> str:
    """The name of the module, written beside an exported file, that has the classes which the file needs."""
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return f"{'_' if stem[:1].isdigit() else ''}{stem}_cell"


def _module_of(kind: type) -> str:
    """The module from which the user imports a class: the name of its file."""
    file = inspect.getsourcefile(kind)
    return kind.__module__ if file is None else Path(file).stem


def _shape(shape: tuple[int | None, ...]) -> str:
    sizes = ["batch" if place == 0 else "tokens" for place in range(2)]
    return f"({', '.join(sizes[place] if size is None else str(size) for place, size in enumerate(shape))})"
