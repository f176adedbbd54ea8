"""Draws an update rule as a tree, operands at the bottom, as a graph for Graphviz."""

from __future__ import annotations

from automl.search_spaces.drawing import PLAIN, edge, node
from automl.search_spaces.update_rule.expression import Expression

NAMES = {  # labels of functions, whose operands are drawn as edges
    "x + y": ("add",),
    "x - y": ("subtract", "left - right"),
    "x * y": ("multiply",),
    "x / y": ("divide", "left / right"),
    "x ^ y": ("power", "left ^ right"),
    "-x": ("negate",),
    "log(abs(x))": ("log of abs",),
    "sqrt(abs(x))": ("sqrt of abs",),
}


def statements(expression: Expression) -> list[str]:
    """Nodes for functions and operands, with the update at the top."""
    drawn = ["ordering=in"]
    count = 0

    def draw(part: Expression) -> str:
        nonlocal count
        name, count = f"rule{count}", count + 1
        word, *parts = part
        if not parts:
            drawn.append(node(name, word, attributes=PLAIN))
        else:
            drawn.append(node(name, *NAMES.get(word, (word.removesuffix("(x)"),))))
        drawn.extend([edge(draw(inside), name) for inside in parts])
        return name

    root = draw(expression)
    drawn += [node("update", "update U:  w' = w - rate * U", attributes=PLAIN), edge(root, "update")]
    return drawn
