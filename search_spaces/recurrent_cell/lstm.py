"""The LSTM, trained in place of a sampled cell: the baseline for every cell that a search finds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class LSTM:
    """An LSTM cell without peepholes (Hochreiter & Schmidhuber 1997; Zaremba et al. 2014, arXiv:1409.2329, section 3).

        next c = sigmoid(f) * c + sigmoid(i) * tanh(g),  next h = sigmoid(o) * tanh(next c)

    Its four products have the order i, f, g, o, as in `keras.layers.LSTMCell`.
    """

    num_products = 4
    biased = True

    def cell(self, units: int, **options: Any) -> keras.layers.Layer:
        """A Keras cell for `keras.layers.RNN`; the bias of its forget gate starts at 0, as in Zaremba et al."""
        import keras

        return keras.layers.LSTMCell(units, unit_forget_bias=False, **options)

    def step(self, x_products: Any, h_products: Any, memory: Any) -> tuple[Any, Any]:
        """The next h and c, (batch, units) each, from products of shape (batch, 4 * units)."""
        from keras import ops

        input_gate, forget_gate, candidate, output_gate = ops.split(x_products + h_products, 4, axis=-1)
        memory = ops.sigmoid(forget_gate) * memory + ops.sigmoid(input_gate) * ops.tanh(candidate)
        return ops.sigmoid(output_gate) * ops.tanh(memory), memory
