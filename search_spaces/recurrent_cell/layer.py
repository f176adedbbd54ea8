"""A recurrent cell as a Keras layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from automl.search_spaces.recurrent_cell.step import tree_step
from automl.search_spaces.recurrent_cell.tree import CellTree


@keras.saving.register_keras_serializable("automl")
class TreeCell(keras.layers.Layer):
    """A cell for `keras.layers.RNN` with two matrix products per step: one of x and one of h, each for all leaves.

    Args:
        cell: a `CellTree`, or its JSON value.
        units: size of h and of c.
        initializer: initializer of both kernels.

    Call arguments:
        inputs: (batch, features).
        states: h and c, (batch, units) each.

    Weights: `kernel` (features, base * units) and `recurrent_kernel` (units, base * units), a block for each leaf in
    the order of `CellTree.leaf_order`. There are no biases, as in the published NASCell.
    """

    def __init__(
        self,
        cell: CellTree | dict[str, Any],
        units: int,
        *,
        initializer: str | keras.initializers.Initializer = "glorot_uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.cell = CellTree(**(cell if isinstance(cell, dict) else dataclasses.asdict(cell)))
        self.units = units
        self.initializer = keras.initializers.get(initializer)
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = (self.units, self.cell.num_products * self.units)
        self.kernel = self.add_weight((input_shape[-1], shape[1]), initializer=self.initializer, name="kernel")
        self.recurrent_kernel = self.add_weight(shape, initializer=self.initializer, name="recurrent_kernel")
        super().build(input_shape)

    def call(self, inputs: Any, states: Sequence[Any], training: bool = False) -> tuple[Any, list[Any]]:
        state, memory = states
        products = ops.matmul(inputs, self.kernel), ops.matmul(state, self.recurrent_kernel)
        state, memory = tree_step(self.cell, *products, memory)
        return state, [state, memory]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "cell": dataclasses.asdict(self.cell),
            "units": self.units,
            "initializer": keras.initializers.serialize(self.initializer),
        }
