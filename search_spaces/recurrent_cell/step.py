"""One step of a recurrent cell, from the products of its weights on: the same in a Keras layer and in training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from keras import ops

from search_spaces.recurrent_cell.spec import RecurrentCell

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


def tree_step(cell: RecurrentCell, x_products: Tensor, h_products: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The next h and c, (batch, units) each.

    Args:
        x_products: (batch, base * units), x W_i of every leaf in the order of `cell.leaf_order`.
        h_products: (batch, base * units), h U_i likewise.
        memory: (batch, units), c.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.4.
    """
    combined, activated = _leaves(cell, x_products, h_products)
    values: list[Tensor] = []
    next_memory = None
    for index, node in enumerate(cell.nodes):
        if (inputs := cell.inputs(index)) is None:
            before, value = combined[index], activated[index]
        else:
            before = COMBINE[node.combination](values[inputs[0]], values[inputs[1]])
            value = ACTIVATE[node.activation](before)
        if index == cell.memory_node:
            next_memory = before
        if index == cell.injection_node:
            value = ACTIVATE[cell.injection.activation](COMBINE[cell.injection.combination](value, memory))
        values.append(value)
    return values[-1], next_memory


def _leaves(cell: RecurrentCell, x_products: Tensor, h_products: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Of each leaf, the value before and after its activation: one operation for all leaves that do the same."""
    units = x_products.shape[-1] // cell.base
    combined: dict[int, Tensor] = {}
    activated: dict[int, Tensor] = {}
    first = 0
    for (combination, activation), group in groupby(
        cell.leaf_order, key=lambda index: (cell.nodes[index].combination, cell.nodes[index].activation)
    ):
        leaves = list(group)
        part = slice(first * units, (first + len(leaves)) * units)
        before = COMBINE[combination](x_products[:, part], h_products[:, part])
        after = ACTIVATE[activation](before)
        for place, leaf in enumerate(leaves):
            own = slice(place * units, (place + 1) * units)
            combined[leaf], activated[leaf] = before[:, own], after[:, own]
        first += len(leaves)
    return combined, activated
