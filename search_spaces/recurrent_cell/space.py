"""Recurrent cells as binary trees: Zoph & Le 2017 (arXiv:1611.01578), section 3.4."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.recurrent_cell.spec import RecurrentCell
from automl.search_spaces.recurrent_cell.tree import ACTIVATIONS, COMBINATIONS, CellNode, check_base, levels

PAPER_COMBINATIONS = ("add", "multiply")
PAPER_ACTIVATIONS = ("identity", "tanh", "sigmoid", "relu")


def recurrent_cell(
    *,
    base: int = 8,
    combinations: Sequence[str] = PAPER_COMBINATIONS,
    activations: Sequence[str] = PAPER_ACTIVATIONS,
) -> Generator[Decision, Any, RecurrentCell]:
    """Yields the decisions of one cell in the paper's order (the tree's nodes, the injection, the two indices) and
    returns its `RecurrentCell`.

    Args:
        base: number of leaves of the tree: 2, 4, 8 or 16.
        combinations: possible combinations of a node's two inputs, from add, multiply and max.
        activations: possible activations, from identity, tanh, sigmoid, relu and sin.

    Raises:
        ValueError: an argument has an invalid value. The first step of the generator raises it.
    """
    check_base(base)
    combinations = _some_of("combinations", combinations, COMBINATIONS)
    activations = _some_of("activations", activations, ACTIVATIONS)

    def node(name: str, kind: str) -> Generator[Decision, Any, CellNode]:
        combination = yield Choice(f"{name}/combination", combinations, kind=f"{kind}_combination")
        activation = yield Choice(f"{name}/activation", activations, kind=f"{kind}_activation")
        return CellNode(combination, activation)

    # Each level has its own kind of decisions: what works at the root, whose value is the state, may not at the leaves.
    nodes = []
    for level, level_nodes in enumerate(levels(base)):
        for index in level_nodes:
            nodes.append((yield from node(f"node{index}", f"level{level}")))
    injection = yield from node("injection", "injection")
    indices = tuple(range(len(nodes)))
    memory_node = yield Choice("memory_node", indices, kind="memory_node")
    injection_node = yield Choice("injection_node", indices, kind="injection_node")
    return RecurrentCell(tuple(nodes), injection, memory_node, injection_node)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"base": 8, "combinations": PAPER_COMBINATIONS, "activations": PAPER_ACTIVATIONS},
    "extended": {
        "base": 8,
        "combinations": tuple(COMBINATIONS),
        "activations": tuple(ACTIVATIONS),
    },  # control experiment 1
    "small": {"base": 4, "combinations": PAPER_COMBINATIONS, "activations": PAPER_ACTIVATIONS},
}

SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {}


def _some_of(name: str, values: Any, known: Sequence[str]) -> tuple[str, ...]:
    listed = isinstance(values, list | tuple) and bool(values) and len(set(map(str, values))) == len(values)
    if not listed or any(value not in known for value in values):
        raise ValueError(f"{name} is {values!r}; it must be a list of some of {', '.join(known)}, each once.")
    return tuple(values)
