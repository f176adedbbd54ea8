"""What the space of recurrent cells decodes to: a tree as plain data, importing no Keras until it is built."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.recurrent_cell.layer import TreeCell

COMBINATIONS = ("add", "multiply", "max")  # of two inputs; all of them commute, which `canonical` relies on
ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu", "sin")
BASES = (2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class CellNode:
    """One node: `activation(left combination right)`."""

    combination: str
    activation: str

    def __post_init__(self) -> None:
        if self.combination not in COMBINATIONS:
            raise ValueError(f"A combination is one of {', '.join(COMBINATIONS)}, not {self.combination!r}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"An activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}.")


@dataclasses.dataclass(frozen=True)
class RecurrentCell:
    """A recurrent cell: a complete binary tree from the input x and the state h to the next h, with a memory c.

        leaf i:      a_i = activation((x W_i) combination (h U_i))
        inner node:  a_i = activation(left combination right), without weights
        injection:   a_k = activation(a_k combination c), once node k = injection_node is computed
        next h:      the root's value
        next c:      what node j = memory_node combines, before its activation

    Nodes are numbered level by level, leaves first, so the root is the last; the inputs of inner node i of a tree with
    b leaves are nodes 2(i - b) and 2(i - b) + 1.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.4.
    """

    nodes: tuple[CellNode, ...]
    injection: CellNode
    memory_node: int
    injection_node: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(_node(node) for node in self.nodes))
        object.__setattr__(self, "injection", _node(self.injection))
        if len(self.nodes) % 2 == 0:
            raise ValueError(f"A tree of {len(self.nodes)} nodes is not complete; base b takes 2b - 1.")
        check_base(self.base)
        for name in ("memory_node", "injection_node"):
            if not 0 <= getattr(self, name) < len(self.nodes):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; the nodes of this cell are 0 to {len(self.nodes) - 1}."
                )

    @property
    def base(self) -> int:
        """The number of leaves, each of which has a pair of weight matrices."""
        return (len(self.nodes) + 1) // 2

    @property
    def leaf_order(self) -> list[int]:
        """The leaves in the order in which their weights stand in one matrix: leaves that do the same side by side, so
        that one operation does it for all of them."""
        alike = [
            (COMBINATIONS.index(node.combination), ACTIVATIONS.index(node.activation))
            for node in self.nodes[: self.base]
        ]
        return sorted(range(self.base), key=lambda index: (alike[index], index))

    @property
    def num_products(self) -> int:
        """How many products of the input, and of the state, one step takes."""
        return self.base

    biased = False

    def inputs(self, index: int) -> tuple[int, int] | None:
        """The two nodes that an inner node reads; None for a leaf."""
        first = 2 * (index - self.base)
        return (first, first + 1) if first >= 0 else None

    def levels(self) -> Iterator[range]:
        """The nodes of each level, leaves first."""
        first, size = 0, self.base
        while size:
            yield range(first, first + size)
            first, size = first + size, size // 2

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions that make the cell of this JSON value, as far as it is one."""
        named = {f"node{index}": node for index, node in enumerate(spec["nodes"])} | {"injection": spec["injection"]}
        values = {f"{name}/{field}": value for name, node in named.items() for field, value in node.items()}
        return values | {name: spec[name] for name in ("memory_node", "injection_node")}

    def canonical(self) -> list[Any]:
        """The tree as a nested JSON value: equal for cells that become each other by swapping inputs of inner nodes.

        Combinations commute and the leaves' weights are drawn alike, so such cells are the same.
        """

        def subtree(index: int) -> list[Any]:
            node, inputs = self.nodes[index], self.inputs(index)
            marks = [int(index == self.memory_node), int(index == self.injection_node)]
            below = sorted((subtree(source) for source in inputs or ()), key=json.dumps)
            return [node.combination, node.activation, marks, below]

        return [subtree(len(self.nodes) - 1), dataclasses.astuple(self.injection)]

    def equations(self) -> list[str]:
        """The cell as one assignment a line, in the order in which it is computed."""
        lines = []
        for index, node in enumerate(self.nodes):
            left, right = (f"a{source}" for source in self.inputs(index) or (0, 0))
            if self.inputs(index) is None:
                left, right = f"x W{index}", f"h U{index}"
            inside = _combined(node.combination, left, right)
            if index == self.memory_node:
                lines.append(f"next c = {inside}")
                inside = "next c"
            lines.append(f"a{index} = {_activated(node.activation, inside)}")
            if index == self.injection_node:
                inside = _combined(self.injection.combination, f"a{index}", "c")
                lines.append(f"a{index} = {_activated(self.injection.activation, inside)}")
        lines.append(f"next h = a{len(self.nodes) - 1}")
        return lines

    def line(self) -> str:
        """The next h as one expression; a leaf's two matrices are not written, and the node of the next c is marked
        with a prime."""

        def text(index: int) -> str:
            inputs = self.inputs(index)
            node = self.nodes[index]
            left, right = ("x", "h") if inputs is None else (text(inputs[0]), text(inputs[1]))
            inside = _combined(node.combination, left, right)
            prime = "'" if index == self.memory_node else ""
            value = f"({inside}){prime}" if node.activation == "identity" else f"{node.activation}{prime}({inside})"
            if index == self.injection_node:
                value = _activated(self.injection.activation, _combined(self.injection.combination, value, "c"))
            return value

        return text(len(self.nodes) - 1)

    def drawing(self) -> str:
        """The tree as text, the root at the top."""
        lines: list[str] = []

        def draw(index: int, prefix: str, branch: str, below: str) -> None:
            lines.append(f"{prefix}{branch}{self._label(index)}")
            inputs = self.inputs(index) or ()
            for place, source in enumerate(inputs):
                last = place == len(inputs) - 1
                draw(source, prefix + below, "└─ " if last else "├─ ", "   " if last else "│  ")

        draw(len(self.nodes) - 1, "", "", "")
        return "\n".join(["next h", *lines])

    def dot(self) -> str:
        """The tree as a graph for Graphviz, inputs at the bottom."""
        lines = ["digraph cell {", "  rankdir=BT;", '  node [shape=box, style=rounded, fontname="Helvetica"];']
        for name in ("x", "h", "c", "next h", "next c"):
            lines.append(f'  "{name}" [shape=plaintext];')
        for index, node in enumerate(self.nodes):
            lines.append(f'  {index} [label="{node.combination}\\n{node.activation}"];')
            if (inputs := self.inputs(index)) is None:
                lines += [f'  "x" -> {index} [label="W{index}"];', f'  "h" -> {index} [label="U{index}"];']
            else:
                lines += [f"  {self._output(source)} -> {index};" for source in inputs]
        lines.append(f'  inject [label="{self.injection.combination}\\n{self.injection.activation}", style=dashed];')
        lines += [f"  {self.injection_node} -> inject;", '  "c" -> inject;']
        lines.append(f'  {self._output(len(self.nodes) - 1)} -> "next h";')
        before = f"before {self.nodes[self.memory_node].activation}"
        lines.append(f'  {self.memory_node} -> "next c" [style=dashed, label="{before}"];')
        return "\n".join([*lines, "}"]) + "\n"

    def _output(self, index: int) -> str:
        return "inject" if index == self.injection_node else str(index)

    def _label(self, index: int) -> str:
        node = self.nodes[index]
        if self.inputs(index) is None:
            inside = _combined(node.combination, f"x W{index}", f"h U{index}")
        else:
            inside = {"add": "sum", "multiply": "product", "max": "maximum"}[node.combination]
        text = _activated(node.activation, inside)
        if index == self.injection_node:
            text += f", then {_activated(self.injection.activation, _combined(self.injection.combination, '·', 'c'))}"
        if index == self.memory_node:
            text += "   [next c: before " + node.activation + "]"
        return text

    def cell(self, units: int, **options: Any) -> TreeCell:
        """A Keras cell for `keras.layers.RNN`; see `layer.TreeCell`."""
        from search_spaces.recurrent_cell.layer import TreeCell

        return TreeCell(self, units, **options)

    def step(self, x_products: Any, h_products: Any, memory: Any) -> tuple[Any, Any]:
        """The next h and c from all leaves' products; see `step.tree_step`."""
        from search_spaces.recurrent_cell.step import tree_step

        return tree_step(self, x_products, h_products, memory)

    def source(self) -> str:
        """The text of a Python file with this cell as a Keras layer, which needs only Keras; see `source.source`."""
        from search_spaces.recurrent_cell.source import source

        return source(self)


def check_base(base: Any) -> None:
    """Raises ValueError where a tree cannot have so many leaves."""
    if type(base) is not int or base not in BASES:
        raise ValueError(f"base is {base!r}; a complete tree has 2, 4, 8 or 16 leaves.")


def _node(node: Any) -> CellNode:
    return CellNode(**node) if isinstance(node, dict) else node  # a spec read from JSON has dicts


def _combined(combination: str, left: str, right: str) -> str:
    return {"add": f"{left} + {right}", "multiply": f"{left} * {right}", "max": f"max({left}, {right})"}[combination]


def _activated(activation: str, inside: str) -> str:
    return inside if activation == "identity" else f"{activation}({inside})"
