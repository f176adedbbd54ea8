"""A recurrent language model as plain TensorFlow operations around any cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from automl.child_trainers.recipes import LanguageRecipe
from automl.child_trainers.text.sizes import weight_shapes
from automl.search_spaces.spec import Cell

RESETS = 62  # the number of the draw of state resets; draws of layers have smaller numbers
State = list[tuple[tf.Tensor, tf.Tensor]]  # h and c of each layer, float32 (batch, units)


class Dropout:
    """The dropout masks of one training step: of types, of inputs of layers, of states, and of whole streams.

    A mask is the same for all tokens of the step.

    Source: Gal & Ghahramani 2016 (arXiv:1512.05287), sections 4.1 and 4.2.

    Args:
        seed: int32 (2,); equal seeds give equal masks.
    """

    def __init__(self, recipe: LanguageRecipe, seed: tf.Tensor) -> None:
        self._recipe = recipe
        self._seed = seed
        self._draws = 0

    def types(self, count: int) -> tf.Tensor | None:
        """The mask of embeddings, (count, 1); None if the recipe has no such dropout."""
        return self._mask((count, 1), self._recipe.embedding_dropout)

    def inputs(self, batch: int, units: int) -> tf.Tensor | None:
        """The mask of a layer's inputs or of the last outputs, (1, batch, units), or None."""
        return self._mask((1, batch, units), self._recipe.dropout)

    def state(self, batch: int, units: int) -> tf.Tensor | None:
        """The mask of the state h that a layer reads, (batch, units), or None."""
        return self._mask((batch, units), self._recipe.recurrent_dropout)

    def streams(self, batch: int) -> tf.Tensor | None:
        """The mask of states, (batch, 1), or None: 0 for each stream whose state is reset, else 1."""
        if self._recipe.state_reset == 0.0:
            return None
        drawn = tf.random.stateless_uniform((batch, 1), self._seed + [0, RESETS])
        return tf.cast(drawn >= self._recipe.state_reset, tf.float32)

    def _mask(self, shape: Sequence[int], share: float) -> tf.Tensor | None:
        self._draws += 1
        if share == 0.0:
            return None
        drawn = tf.random.stateless_uniform(shape, self._seed + [0, self._draws])
        return tf.cast(drawn >= share, tf.float32) / (1.0 - share)


class LanguageModel:
    """Embedding, recurrent layers, and a softmax over the vocabulary.

    Args:
        cell: the cell of every layer.
        num_types: size of the vocabulary.
        units: the width of every layer and of the embedding.
        precision: of matrix products in training, `float32` or `bfloat16`. Everything else is float32.
    """

    def __init__(
        self,
        cell: Cell,
        num_types: int,
        units: int,
        recipe: LanguageRecipe,
        *,
        seed: int,
        precision: str = "float32",
    ) -> None:
        self.cell = cell
        self.num_types = num_types
        self.units = units
        self.recipe = recipe
        self._dtype = tf.dtypes.as_dtype(precision)
        # Traced once, instead of once for each token of each layer.
        self._step = tf.function(self._take_step, autograph=False)
        self.trainable: dict[str, tf.Variable] = {}
        self.moving: Mapping[str, tf.Variable] = {}
        self.state: Mapping[str, tf.Variable] = {}
        for name, value in initial_weights(cell, num_types, units, recipe, seed=seed).items():
            self.trainable[name] = tf.Variable(value, name=name.replace("/", "_"))

    def _take_step(
        self, x_products: tf.Tensor, h: tf.Tensor, c: tf.Tensor, tap: tf.Tensor, matrix: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        h_products = tf.cast(tf.matmul(tf.cast(h, self._dtype), matrix), tf.float32)
        h, c = self.cell.step(x_products, h_products + tap, c)
        return h, c

    def zero_state(self, batch: int) -> State:
        zeros = tf.zeros((batch, self.units))
        return [(zeros, zeros)] * self.recipe.layers

    def hidden(
        self,
        embedded: tf.Tensor,
        state: State,
        *,
        dropout: Dropout,
        taps: Sequence[tf.Tensor],
    ) -> tuple[tf.Tensor, State, list[tf.Tensor]]:
        """The forward pass of a training step.

        The recurrent kernel is under stop-gradient. Its gradient is one matrix product of the states that the layer
        read and the gradients of its taps.

        Args:
            embedded: float32 (tokens, batch, units); the number of tokens must be static.
            taps: the gradient taps of each layer, zeros (tokens, batch, products * units), which are added to the
                products of its state.

        Returns:
            The outputs of the last layer, (tokens, batch, units); the state after the last token; and the states that
            each layer read, (tokens * batch, units).
        """
        batch = embedded.shape[1]
        x, after, states_read = embedded, [], []
        for index, (h, c) in enumerate(state):
            kernel, recurrent = (self.trainable[f"layer{index}/{name}"] for name in ("kernel", "recurrent_kernel"))
            x = _masked(x, dropout.inputs(batch, self.units))
            keep = dropout.state(batch, self.units)
            products = self.product(tf.reshape(x, (-1, self.units)), kernel)
            if self.cell.biased:
                products += self.trainable[f"layer{index}/bias"]
            products = tf.unstack(tf.reshape(products, (-1, batch, kernel.shape[1])), num=embedded.shape[0])
            matrix = tf.stop_gradient(tf.cast(recurrent, self._dtype))
            outputs, states = [], []
            for x_products, tap in zip(products, tf.unstack(taps[index]), strict=True):
                h = _masked(h, keep)
                states.append(h)
                h, c = self._step(x_products, h, c, tap, matrix)
                outputs.append(h)
            x = tf.stack(outputs)
            after.append((h, c))
            states_read.append(tf.concat(states, axis=0))
        return _masked(x, dropout.inputs(batch, self.units)), after, states_read

    def scan(self, embedded: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        """The outputs of the last layer, (tokens, batch, units), and the state after the last token; all in float32.

        Args:
            embedded: float32 (tokens, batch, units), for any number of tokens.
        """
        x, after = embedded, []
        for index, (h, c) in enumerate(state):
            kernel, recurrent = (self.trainable[f"layer{index}/{name}"] for name in ("kernel", "recurrent_kernel"))
            products = tf.tensordot(x, kernel, 1)
            if self.cell.biased:
                products += self.trainable[f"layer{index}/bias"]
            x, h, c = recurrence(self.cell, products, tf.convert_to_tensor(recurrent), h, c)
            after.append((h, c))
        return x, after

    @property
    def output_name(self) -> str:
        """The name of the softmax's matrix, which has a row for each type: its own kernel, or the embedding."""
        return "embedding" if self.recipe.shared_embeddings else "softmax/kernel"

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """The logits, (count, num_types), of outputs of the last layer, (count, units); all in float32."""
        product = tf.matmul(hidden, self.trainable[self.output_name], transpose_b=True)
        return product + self.trainable["softmax/bias"]

    def product(self, a: tf.Tensor, b: tf.Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> tf.Tensor:
        """A matrix product in the precision of training, returned as float32."""
        a, b = tf.cast(a, self._dtype), tf.cast(b, self._dtype)
        return tf.cast(tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b), tf.float32)


def recurrence(
    cell: Cell, products: tf.Tensor, matrix: tf.Tensor, h: tf.Tensor, c: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The outputs of a layer for all tokens, (tokens, ..., batch, units), and its h and c after the last one.

    Args:
        products: of the layer's inputs, (tokens, ..., batch, products * units), for any number of tokens. Any
            dimensions may stand before the batch if all arguments have them.
        matrix: the recurrent kernel, (..., units, products * units).
        h, c: before the first token, (..., batch, units).
    """
    known = products.shape[0]
    count = tf.shape(products)[0] if known is None else known

    def body(
        place: tf.Tensor, h: tf.Tensor, c: tf.Tensor, outputs: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        h, c = cell.step(products[place], tf.matmul(h, matrix), c)
        return place + 1, h, c, outputs.write(place, h)

    start = (tf.constant(0), h, c, tf.TensorArray(h.dtype, count, element_shape=h.shape))
    # XLA needs the largest number of turns for the gradient, where it is known.
    _, h, c, outputs = tf.while_loop(lambda place, *_: place < count, body, start, maximum_iterations=known)
    return outputs.stack(), h, c


def initial_weights(
    cell: Cell, num_types: int, units: int, recipe: LanguageRecipe, *, seed: int
) -> dict[str, np.ndarray]:
    """The weights before training, by name: uniform within plus or minus the recipe's scale; biases are 0."""
    generator = np.random.Generator(np.random.PCG64(seed))
    weights = {}
    for name, shape in weight_shapes(cell, num_types, units, recipe).items():
        drawn = generator.uniform(-recipe.init_scale, recipe.init_scale, shape)
        weights[name] = (np.zeros(shape) if name.endswith("bias") else drawn).astype(np.float32)
    return weights


def _masked(x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    return x if mask is None else x * mask
