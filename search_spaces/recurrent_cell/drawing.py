"""Draws a recurrent cell as a tree, inputs at the bottom, as a graph for Graphviz."""

from __future__ import annotations

from automl.search_spaces.drawing import PLAIN, edge, node
from automl.search_spaces.recurrent_cell.tree import CellNode, CellTree

DASHED = 'style="rounded,filled,dashed"'


def statements(cell: CellTree) -> list[str]:
    """Nodes labelled by their operations. The memory node is drawn as two, because the next c is its value before the
    activation."""
    drawn = [node(name, name, attributes=PLAIN) for name in ("c", "next h", "next c")]
    for index, tree_node in enumerate(cell.nodes):
        bottom = f"node{index}"
        if index == cell.memory_node:
            drawn += [node(bottom, tree_node.combination), edge(bottom, "next c")]
            if tree_node.activation != "identity":
                drawn += [node(f"active{index}", tree_node.activation), edge(bottom, f"active{index}", "weight=10")]
        else:
            drawn.append(node(bottom, *_operations(tree_node)))
        if (inputs := cell.inputs(index)) is None:
            for part, weights in (("x", f"W{index}"), ("h", f"U{index}")):
                drawn += [node(f"{part}{index}", f"{part} {weights}", attributes=PLAIN), edge(f"{part}{index}", bottom)]
        else:
            drawn += [edge(_output(cell, source), bottom) for source in inputs]
    drawn.append(node("injection", *_operations(cell.injection), attributes=DASHED))
    drawn += [edge(_top(cell, cell.injection_node), "injection", "weight=10"), edge("c", "injection")]
    drawn.append(edge(_output(cell, len(cell.nodes) - 1), "next h", "weight=10"))
    return drawn


def _operations(tree_node: CellNode) -> list[str]:
    return [tree_node.combination] + ([] if tree_node.activation == "identity" else [tree_node.activation])


def _top(cell: CellTree, index: int) -> str:
    """The name of the drawn node that has a tree node's own value."""
    split = index == cell.memory_node and cell.nodes[index].activation != "identity"
    return f"active{index}" if split else f"node{index}"


def _output(cell: CellTree, index: int) -> str:
    """The name of the drawn node whose value other nodes read from a tree node."""
    return "injection" if index == cell.injection_node else _top(cell, index)
