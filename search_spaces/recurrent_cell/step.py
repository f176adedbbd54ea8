"""One step of a recurrent cell, given the products with its weights; the Keras layer and training share it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, groupby
from typing import Any

from keras import ops

from automl.search_spaces.recurrent_cell.tree import CellTree

Tensor = Any

COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": ops.add,
    "multiply": ops.multiply,
    "max": ops.maximum,
}
ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "relu": ops.relu,
    "sin": ops.sin,
}


def tree_step(cell: CellTree, x_products: Tensor, h_products: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The next h and c, (batch, units) each; see `CellTree` for the equations.

    Args:
        x_products: (batch, base * units), x W_i of every leaf i in the order of `cell.leaf_order`.
        h_products: (batch, base * units), h U_i in the same order.
        memory: (batch, units), c.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.4.
    """
    leaves = _leaves(cell, x_products, h_products)
    values: list[Tensor] = []
    next_memory = None
    for index, node in enumerate(cell.nodes):
        if (inputs := cell.inputs(index)) is None:
            before, value = leaves[index]
        else:
            before = COMBINE[node.combination](values[inputs[0]], values[inputs[1]])
            value = ACTIVATE[node.activation](before)
        if index == cell.memory_node:
            next_memory = before
        if index == cell.injection_node:
            value = ACTIVATE[cell.injection.activation](COMBINE[cell.injection.combination](value, memory))
        values.append(value)
    return values[-1], next_memory


def _leaves(cell: CellTree, x_products: Tensor, h_products: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """The value of each leaf before its activation (None if nothing reads it) and after. Leaves with equal operations
    are batched into one operation."""
    equal = groupby(cell.leaf_order, key=lambda index: (cell.nodes[index].combination, cell.nodes[index].activation))
    groups = [(*operations, list(leaves)) for operations, leaves in equal]
    units = x_products.shape[-1] // cell.base
    sizes = [len(leaves) * units for _, _, leaves in groups]
    values: dict[int, tuple[Tensor, Tensor]] = {}
    for (combination, activation, leaves), x, h in zip(
        groups, _parts(x_products, sizes), _parts(h_products, sizes), strict=True
    ):
        before = COMBINE[combination](x, h)
        after = _parts(ACTIVATE[activation](before), [units] * len(leaves))
        read = cell.memory_node in leaves
        befores = _parts(before, [units] * len(leaves)) if read else [None] * len(leaves)
        values |= zip(leaves, zip(befores, after, strict=True), strict=True)
    return values


def _parts(x: Tensor, sizes: list[int]) -> list[Tensor]:
    """Splits the last axis. It does not slice, because the gradient of each slice is as large as the whole tensor."""
    if len(sizes) == 1:
        return [x]
    return list(ops.split(x, list(accumulate(sizes))[:-1], axis=-1))
