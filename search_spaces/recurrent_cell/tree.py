"""The tree of a recurrent cell as plain data, which training, drawings and exports use."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

COMBINATIONS = ("add", "multiply", "max")  # of two inputs; `canonical` relies on it that all of them commute
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


class Value(enum.IntEnum):
    """What is known about a value without computing it."""

    ZERO = 0
    CONSTANT = 1  # the same for every input
    VARYING = 2  # may depend on the input

    def combined(self, combination: str, other: Value) -> Value:
        product_of_zero = combination == "multiply" and Value.ZERO in (self, other)
        return Value.ZERO if product_of_zero else max(self, other)

    def activated(self, activation: str) -> Value:
        return max(self, Value.CONSTANT) if activation == "sigmoid" else self


@dataclasses.dataclass(frozen=True)
class CellTree:
    """A recurrent cell: a complete binary tree from the input x and the state h to the next h, with a memory c.

        leaf i:      a_i = activation((x W_i) combination (h U_i))
        inner node:  a_i = activation(left combination right), without weights
        injection:   a_k = activation(a_k combination c), once node k = injection_node is computed
        next h:      the root's value
        next c:      the value of node j = memory_node before its activation

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
        """The order of the leaves' weights in one matrix. Leaves with equal operations are adjacent, so that one
        operation computes all of them."""
        operations = [
            (COMBINATIONS.index(node.combination), ACTIVATIONS.index(node.activation))
            for node in self.nodes[: self.base]
        ]
        return sorted(range(self.base), key=lambda index: (operations[index], index))

    @property
    def num_products(self) -> int:
        """Number of products with x, and of products with h, in one step."""
        return self.base

    biased = False

    def inputs(self, index: int) -> tuple[int, int] | None:
        """The two nodes that an inner node reads; None for a leaf."""
        first = 2 * (index - self.base)
        return (first, first + 1) if first >= 0 else None

    @property
    def reads_input(self) -> bool:
        """Whether the state can depend on the input. It cannot if products keep the initial state of zeros at zero.

        The method is abstract interpretation: it computes steps of the cell on `Value` up to a fixed point.
        """
        state = memory = Value.ZERO
        while True:
            next_state, next_memory = self._next(state, memory)
            if next_state <= state and next_memory <= memory:
                return state is Value.VARYING
            state, memory = max(state, next_state), max(memory, next_memory)

    def without_redundant_relus(self) -> tuple[list[str], str]:
        """The activations of the nodes and of the injection, with `identity` in place of each relu whose input is never
        negative. Such a relu changes neither values nor gradients."""
        activations, injected, next_memory_not_negative = self._signs(memory_not_negative=True)
        if not next_memory_not_negative:
            activations, injected, _ = self._signs(memory_not_negative=False)
        return activations, injected

    def _signs(self, *, memory_not_negative: bool) -> tuple[list[str], str, bool]:
        """As `without_redundant_relus`, given whether c is never negative. Also returns whether the next c is then
        never negative.

        A maximum does not count as never negative: if both of its inputs are 0, a relu of it stops gradients.
        """
        activations: list[str] = []
        injected, next_memory = self.injection.activation, False
        values: list[bool] = []  # whether a node's value is never negative
        for index, node in enumerate(self.nodes):
            sources = self.inputs(index)
            inside = sources is not None and node.combination != "max" and values[sources[0]] and values[sources[1]]
            if index == self.memory_node:
                next_memory = inside
            activations.append(_without_redundant_relu(node.activation, inside))
            value = _never_negative(node.activation, inside)
            if index == self.injection_node:
                inside = self.injection.combination != "max" and value and memory_not_negative
                injected = _without_redundant_relu(self.injection.activation, inside)
                value = _never_negative(self.injection.activation, inside)
            values.append(value)
        return activations, injected, next_memory

    def _next(self, state: Value, memory: Value) -> tuple[Value, Value]:
        values: list[Value] = []
        next_memory = memory
        for index, node in enumerate(self.nodes):
            sources = self.inputs(index)
            left, right = (Value.VARYING, state) if sources is None else (values[source] for source in sources)
            inside = left.combined(node.combination, right)
            if index == self.memory_node:
                next_memory = inside
            value = inside.activated(node.activation)
            if index == self.injection_node:
                value = value.combined(self.injection.combination, memory).activated(self.injection.activation)
            values.append(value)
        return values[-1], next_memory

    def equations(self) -> list[str]:
        """The cell as lines with one assignment each, in the order of computation."""
        lines = []
        for index, node in enumerate(self.nodes):
            left, right = (f"a{source}" for source in self.inputs(index) or (0, 0))
            if self.inputs(index) is None:
                left, right = f"x W{index}", f"h U{index}"
            inside = combined(node.combination, left, right)
            if index == self.memory_node:
                lines.append(f"next c = {inside}")
                inside = "next c"
            lines.append(f"a{index} = {activated(node.activation, inside)}")
            if index == self.injection_node:
                inside = combined(self.injection.combination, f"a{index}", "c")
                lines.append(f"a{index} = {activated(self.injection.activation, inside)}")
        lines.append(f"next h = a{len(self.nodes) - 1}")
        return lines


def _never_negative(activation: str, inside: bool) -> bool:
    """Whether an activation's value is never negative, given whether its input is never negative."""
    return activation in ("relu", "sigmoid") or (inside and activation in ("identity", "tanh"))


def _without_redundant_relu(activation: str, inside: bool) -> str:
    """The activation, or `identity` if it is a relu whose input (`inside`) is never negative."""
    return "identity" if activation == "relu" and inside else activation


def levels(base: int) -> Iterator[range]:
    """The nodes of each level of a tree with `base` leaves, leaves first."""
    first, size = 0, base
    while size:
        yield range(first, first + size)
        first, size = first + size, size // 2


def check_base(base: Any) -> None:
    """Raises ValueError if a tree cannot have `base` leaves."""
    if type(base) is not int or base not in BASES:
        raise ValueError(f"base is {base!r}; a complete tree has 2, 4, 8 or 16 leaves.")


def _node(node: Any) -> CellNode:
    return CellNode(**node) if isinstance(node, dict) else node  # a spec read from JSON has dicts


def combined(combination: str, left: str, right: str) -> str:
    """The text of a combination of two expressions."""
    return {"add": f"{left} + {right}", "multiply": f"{left} * {right}", "max": f"max({left}, {right})"}[combination]


def activated(activation: str, inside: str) -> str:
    """The text of an activation of an expression."""
    return inside if activation == "identity" else f"{activation}({inside})"
