"""The LSTM, to be trained where a sampled cell is: the yardstick of every cell that a search finds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class LSTM:
    """An LSTM cell without peepholes (Hochreiter & Schmidhuber 1997; Zaremba et al. 2014, arXiv:1409.2329, section 3).

        next c = sigmoid(f) * c + sigmoid(i) * tanh(g),  next h = sigmoid(o) * tanh(next c)

    Its four products stand in the order i, f, g, o, which is that of `keras.layers.LSTMCell`.
    """

    num_products = 4
    biased = True

    def cell(self, units: int, **options: Any) -> keras.layers.Layer:
        """A Keras cell for `keras.layers.RNN`; its forget gate has no bias to begin with, as in Zaremba et al."""
        import keras

        return keras.layers.LSTMCell(units, unit_forget_bias=False, **options)

    def step(self, x_products: Any, h_products: Any, memory: Any) -> tuple[Any, Any]:
        """The next h and c, (batch, units) each, from products of shape (batch, 4 * units)."""
        from keras import ops

        units = memory.shape[-1]
        before = x_products + h_products
        gates = ops.sigmoid(before)
        input_gate, forget_gate, output_gate = (gates[:, i * units : (i + 1) * units] for i in (0, 1, 3))
        candidate = ops.tanh(before[:, 2 * units : 3 * units])
        memory = forget_gate * memory + input_gate * candidate
        return output_gate * ops.tanh(memory), memory
