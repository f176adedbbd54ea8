"""Writes a recurrent cell as a readable Keras layer that needs only Keras."""

from __future__ import annotations

import dataclasses
import json
import textwrap

from automl.search_spaces.recurrent_cell.tree import CellNode, CellTree

HEAD = '''\
CELL = (  # identifies this cell in a saved model
{spec}
)


@keras.saving.register_keras_serializable("automl")
class TreeCell(keras.layers.Layer):
    """A recurrent cell for keras.layers.RNN: a tree over the input x and the state h, with a memory c.

    Inputs are (batch, features); h and c are (batch, units). W is the part of `kernel`, and U that of
    `recurrent_kernel`, that belongs to a leaf.

{equations}
    """

    def __init__(self, units, initializer="glorot_uniform", cell=None, **options):
        super().__init__(**options)
        if cell is not None and json.dumps(cell, sort_keys=True) != CELL:
            raise ValueError(
                "The model was saved with another cell than that of this file; import the file that was exported with "
                "it, and of several such files that one last."
            )
        self.units = units
        self.initializer = keras.initializers.get(initializer)
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape):
        width = {base} * self.units
        self.kernel = self.add_weight((input_shape[-1], width), initializer=self.initializer, name="kernel")
        self.recurrent_kernel = self.add_weight(
            (self.units, width), initializer=self.initializer, name="recurrent_kernel"
        )
        super().build(input_shape)

    def call(self, inputs, states, training=False):
        h, c = states
        leaves = {leaves}  # the order of their weights in both kernels
        x = dict(zip(leaves, ops.split(ops.matmul(inputs, self.kernel), {base}, axis=-1)))
        h = dict(zip(leaves, ops.split(ops.matmul(h, self.recurrent_kernel), {base}, axis=-1)))
{statements}
        return {root}, [{root}, next_c]

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return super().get_config() | {{"units": self.units, "initializer": initializer, "cell": json.loads(CELL)}}
'''


def source(cell: CellTree) -> str:
    """The text of a class `TreeCell` that computes this cell; it uses the names `keras`, `ops` (of `keras`) and `json`.

    It has the weights of `layer.TreeCell`, so a model that was saved with one of the two loads with the other.
    """
    statements = []
    for index, node in enumerate(cell.nodes):
        inputs = cell.inputs(index)
        left, right = (f"x[{index}]", f"h[{index}]") if inputs is None else (f"a{inputs[0]}", f"a{inputs[1]}")
        inside = _combined(node, left, right)
        if index == cell.memory_node:
            statements.append(f"next_c = {inside}")
            inside = "next_c"
        statements.append(f"a{index} = {_activated(node, inside)}")
        if index == cell.injection_node:
            inside = _combined(cell.injection, f"a{index}", "c")
            statements.append(f"a{index} = {_activated(cell.injection, inside)}")
    spec = json.dumps(dataclasses.asdict(cell), sort_keys=True)
    return HEAD.format(
        spec="\n".join(f"    {part!r}" for part in textwrap.wrap(spec, 100, drop_whitespace=False)),
        equations="\n".join(f"        {line}" for line in cell.equations()),
        base=cell.base,
        leaves=repr(cell.leaf_order),
        statements="\n".join(f"        {statement}" for statement in statements),
        root=f"a{len(cell.nodes) - 1}",
    )


def _combined(node: CellNode, left: str, right: str) -> str:
    if node.combination == "max":
        return f"ops.maximum({left}, {right})"
    return f"{left} {'+' if node.combination == 'add' else '*'} {right}"


def _activated(node: CellNode, inside: str) -> str:
    return inside if node.activation == "identity" else f"ops.{node.activation}({inside})"
