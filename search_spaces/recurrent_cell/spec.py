"""The spec of the space of recurrent cells: a tree, which imports Keras only when it is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from automl.search_spaces.recurrent_cell.tree import CellTree, activated, combined

if TYPE_CHECKING:
    from automl.search_spaces.recurrent_cell.layer import TreeCell


@dataclasses.dataclass(frozen=True)
class RecurrentCell(CellTree):
    """A recurrent cell; see `CellTree` for what it computes."""

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The cell from its JSON value."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """The cell as a JSON value."""
        return dataclasses.asdict(self)

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions for the cell of this JSON value, which is not validated."""
        named = {f"node{index}": node for index, node in enumerate(spec["nodes"])} | {"injection": spec["injection"]}
        values = {f"{name}/{field}": value for name, node in named.items() for field, value in node.items()}
        return values | {name: spec[name] for name in ("memory_node", "injection_node")}

    def canonical(self) -> Any:
        """The tree as a nested JSON value: the same for cells that differ only in the order of an inner node's inputs,
        or in a relu whose input is never negative.

        Such cells are equal, because combinations commute and the weights of all leaves have one initial distribution.
        All cells whose state, initially zero, never depends on the input also count as one child: they can learn only
        word frequencies.
        """
        if not self.reads_input:
            return "reads no input"
        activations, injected = self._activations()

        def subtree(index: int) -> list[Any]:
            node, inputs = self.nodes[index], self.inputs(index)
            marks = [int(index == self.memory_node), int(index == self.injection_node)]
            below = sorted((subtree(source) for source in inputs or ()), key=json.dumps)
            return [node.combination, activations[index], marks, below]

        return [subtree(len(self.nodes) - 1), (self.injection.combination, injected)]

    def _activations(self) -> tuple[list[str], str]:
        """The activations of the nodes and of the injection, in canonical form."""
        return self.without_redundant_relus()

    def with_behaviour(self, versions: Mapping[str, int]) -> RecurrentCell:
        """The same cell with these versions of behaviours (`child_trainers.behaviour`)."""
        if versions["cell_identity"] > 1:
            return self
        return EveryReluCell(self.nodes, self.injection, self.memory_node, self.injection_node)

    def line(self) -> str:
        """The next h as one expression. It omits the leaves' weight matrices, and marks the memory node by a prime."""

        def text(index: int) -> str:
            inputs = self.inputs(index)
            node = self.nodes[index]
            left, right = ("x", "h") if inputs is None else (text(inputs[0]), text(inputs[1]))
            inside = combined(node.combination, left, right)
            prime = "'" if index == self.memory_node else ""
            value = f"({inside}){prime}" if node.activation == "identity" else f"{node.activation}{prime}({inside})"
            if index == self.injection_node:
                value = activated(self.injection.activation, combined(self.injection.combination, value, "c"))
            return value

        return text(len(self.nodes) - 1)

    def drawing(self) -> str:
        """The tree as text, the root at the top."""
        lines: list[str] = []

        def draw(index: int, prefix: str, branch: str, below: str) -> None:
            lines.append(f"{prefix}{branch}{self._label(index)}")
            inputs = self.inputs(index) or ()
            for position, source in enumerate(inputs):
                last = position == len(inputs) - 1
                draw(source, prefix + below, "└─ " if last else "├─ ", "   " if last else "│  ")

        draw(len(self.nodes) - 1, "", "", "")
        return "\n".join(["next h", *lines])

    def dot(self) -> str:
        """The tree as a graph for Graphviz, inputs at the bottom."""
        from automl.search_spaces.drawing import graph
        from automl.search_spaces.recurrent_cell.drawing import statements

        return graph(statements(self), upwards=True)

    def _label(self, index: int) -> str:
        node = self.nodes[index]
        if self.inputs(index) is None:
            inside = combined(node.combination, f"x W{index}", f"h U{index}")
        else:
            inside = {"add": "sum", "multiply": "product", "max": "maximum"}[node.combination]
        text = activated(node.activation, inside)
        if index == self.injection_node:
            text += f", then {activated(self.injection.activation, combined(self.injection.combination, '·', 'c'))}"
        if index == self.memory_node:
            text += "   [next c: before " + node.activation + "]"
        return text

    def cell(self, units: int, **options: Any) -> TreeCell:
        """A Keras cell for `keras.layers.RNN`; see `layer.TreeCell`."""
        from automl.search_spaces.recurrent_cell.layer import TreeCell

        return TreeCell(self, units, **options)

    def step(self, x_products: Any, h_products: Any, memory: Any) -> tuple[Any, Any]:
        """The next h and c from the products of all leaves; see `step.tree_step`."""
        from automl.search_spaces.recurrent_cell.step import tree_step

        return tree_step(self, x_products, h_products, memory)

    def source(self) -> str:
        """The text of a Python file with this cell as a Keras layer, which needs only Keras; see `source.source`."""
        from automl.search_spaces.recurrent_cell.source import source

        return source(self)


class EveryReluCell(RecurrentCell):
    """A recurrent cell with the identity of automl 0.1.0: cells that differ in any relu are different."""

    def _activations(self) -> tuple[list[str], str]:
        return [node.activation for node in self.nodes], self.injection.activation
