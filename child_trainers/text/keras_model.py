"""A trained language model as a Keras model that reads words, and as readable source."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from automl.child_trainers.data.text import UNKNOWN, TextData
from automl.child_trainers.recipes import LanguageRecipe
from automl.child_trainers.text.sizes import num_parameters
from automl.search_spaces.script import QUIET_START
from automl.search_spaces.spec import BringsRate, Cell, KerasCell


def build(
    cell: KerasCell, text: TextData, units: int, recipe: LanguageRecipe, weights: Mapping[str, np.ndarray]
) -> keras.Model:
    """The Keras model of a trained language model, which can read text of any length in pieces.

    Its inputs are words, strings (batch, tokens), and h and c of each layer, (batch, units). Its outputs are the logits
    of the next words, (batch, tokens, types), and h and c of each layer after the last token. A word that is not in the
    vocabulary is read as `<unk>`.

    Raises:
        ValueError: the weights are those of another cell, size or vocabulary.
    """
    words = keras.Input((None,), dtype="string", name="words")
    lookup = keras.layers.StringLookup(vocabulary=list(text.vocabulary), name="vocabulary")
    types = len(text.vocabulary)
    x = keras.layers.Embedding(types + 1, units, name="embedding")(lookup(words))
    states_before, states_after = [], []
    for index in range(recipe.layers):
        states = [keras.Input((units,), name=f"{part}{index}") for part in ("h", "c")]
        rnn = keras.layers.RNN(cell.cell(units), return_sequences=True, return_state=True, name=f"layer{index}")
        x, *after = rnn(x, initial_state=states)
        states_before += states
        states_after += after
    logits = keras.layers.Dense(types, name="logits")(x)
    # Keras names an output after its layer.
    next_states = [
        keras.layers.Identity(name=f"next_{before.name}")(after)
        for before, after in zip(states_before, states_after, strict=True)
    ]
    model = keras.Model([words, *states_before], [logits, *next_states], name="language_model")
    arrays = dict(weights)
    embedding = arrays.pop("embedding", np.zeros((0, units), np.float32))
    unknown = text.vocabulary.index(UNKNOWN) if UNKNOWN in text.vocabulary else None
    unknown_row = np.zeros((1, units), np.float32) if unknown is None else embedding[[unknown]]
    arrays["embedding/embeddings"] = np.concatenate([unknown_row, embedding])
    # Training calls the layer of the logits `softmax`.
    arrays |= {
        f"logits/{part}": arrays.pop(f"softmax/{part}") for part in ("kernel", "bias") if f"softmax/{part}" in arrays
    }
    arrays["logits/kernel"] = (embedding if recipe.shared_embeddings else arrays.get("logits/kernel", embedding)).T
    by_path = {_name(variable.path): variable for variable in model.weights}
    if by_path.keys() != arrays.keys() or any(by_path[name].shape != arrays[name].shape for name in arrays):
        raise ValueError("weights of another cell, size or vocabulary")
    for name, variable in by_path.items():
        variable.assign(arrays[name])
    return model


def source(cell: Cell, definition: str, text: TextData, units: int, recipe: LanguageRecipe) -> str:
    """The text of a Python file that needs only Keras.

    The file defines the cell as a layer, and `build()`, which makes the language model from word numbers to logits. If
    the cell brings an optimizer, the file defines it as `FoundRule`.

    Args:
        definition: the source of the cell's classes; see `HasSource`.
    """
    types = len(text.vocabulary)
    if recipe.shared_embeddings:
        bias, embedding = [BIAS], "ReversibleEmbedding"
        logits = 'Bias(name="logits")(embedding(x, reverse=True))  # by the weights of the embedding'
    else:
        bias, embedding, logits = [], "Embedding", 'layers.Dense(num_types, name="logits")(x)'
    build = BUILD.format(types=types, units=units, layers=recipe.layers, embedding=embedding, logits=logits)
    body = "\n\n".join([definition, *bias, build])
    head = HEAD.format(
        name=_in_docstring(text.name),
        types=types,
        parameters=num_parameters(cell, types, units, recipe),
        trained=TRAINED.format(rate=cell.learning_rate, recipe=recipe) if isinstance(cell, BringsRate) else "",
        start=f"{QUIET_START}\n",
        imports="".join(f"import {name}\n" for name in ("json", "math") if f"{name}." in body) + "\n",
    )
    return f"{head}\n\n{body}"


def _in_docstring(name: str) -> str:
    """A data set's name as text that cannot end a docstring: it may come from a store made by somebody else."""
    return "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in name)


def _name(path: str) -> str:
    """`layer0/kernel` for `layer0/tree_cell_3/kernel`, because Keras numbers the cells of a process."""
    first, *_, last = path.split("/")
    return f"{first}/{last}"


HEAD = '''\
"""A recurrent cell that automl found, as a Keras layer, and the language model in which it was trained.

The model was trained on {name}, with a vocabulary of {types:,} types and {parameters:,} parameters.
{trained}"""

{start}{imports}import keras
from keras import layers, ops
'''

TRAINED = """\

It was trained by FoundRule at a learning rate of {rate:g}. The gradients were those of the loss summed over
{recipe.unroll} tokens, clipped to a norm of {recipe.clip_norm:g}.
"""

BUILD = '''\
def build(num_types={types}, units={units}, num_layers={layers}):
    """A model from word numbers, (batch, tokens), to logits of the next words, (batch, tokens, num_types)."""
    words = keras.Input((None,), dtype="int32", name="words")
    embedding = layers.{embedding}(num_types, units, name="embedding")
    x = embedding(words)
    for index in range(num_layers):
        x = layers.RNN(TreeCell(units), return_sequences=True, name=f"layer{{index}}")(x)
    logits = {logits}
    return keras.Model(words, logits)


if __name__ == "__main__":
    build().summary()
'''

BIAS = '''\
@keras.saving.register_keras_serializable("automl")
class Bias(keras.layers.Layer):
    """Adds a trainable bias to each entry of the last axis."""

    def build(self, input_shape):
        self.bias = self.add_weight((input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs):
        return inputs + self.bias
'''
