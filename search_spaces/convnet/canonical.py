"""A canonical order of the nodes of a labelled acyclic graph, which does not depend on their numbering."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from typing import Any

Colors = list[int]  # for each node, the number of nodes in earlier cells; so splitting a cell changes no other cell
Trace = tuple[Any, ...]


def canonical_order(labels: Sequence[tuple[int, ...]], inputs: Sequence[Sequence[int]]) -> list[int]:
    """A topological order of the nodes. Isomorphic labelled graphs become equal when renumbered in this order.

    The method is individualization and refinement (McKay 1981, "Practical graph isomorphism"):

    1. Sort the nodes by the length of the longest path that ends at them (so a node follows its inputs), then by label.
       Number twins, which are equal in label, inputs and readers, arbitrarily: swapping them changes nothing.
    2. Nodes that still look alike are a cell. Split cells by the cells of their nodes' inputs and readers until no cell
       splits (colour refinement). For most networks every cell then has one node, which gives the order.
    3. Otherwise put each node of the first larger cell first in turn (individualization), and repeat 2. This is a tree
       whose leaves are orders. Take the leaf with the smallest trace; a trace is what refinement gave on the path.
    4. Two leaves with equal graphs give an automorphism. Skip a subtree that an automorphism maps to a visited one, and
       a subtree whose trace is larger than the smallest so far. So m equal parts cost about m leaves for each
       individualized node, not m!.

    Args:
        labels: the label of each node.
        inputs: for each node, the indices of its inputs, all smaller than its own index.
    """
    readers: list[list[int]] = [[] for _ in inputs]
    distances: list[int] = []
    for node, sources in enumerate(inputs):
        distances.append(1 + max((distances[source] for source in sources), default=-1))
        for source in sources:
            readers[source].append(node)
    num_twins: collections.Counter[Any] = collections.Counter()
    keys = []
    for node, label in enumerate(labels):
        twin_key = (label, frozenset(inputs[node]), frozenset(readers[node]))
        keys.append((distances[node], label, num_twins[twin_key]))
        num_twins[twin_key] += 1
    tree = _Tree(inputs, readers)
    tree.explore(_positions(keys), path=(), traces=())
    return tree.best_order


class _Tree:
    """The search tree of `canonical_order`. A node of the tree is the path of individualized graph nodes."""

    def __init__(self, inputs: Sequence[Sequence[int]], readers: Sequence[Sequence[int]]) -> None:
        self._inputs = inputs
        self._readers = readers
        self._leaves: dict[Trace, tuple[list[int], tuple[int, ...]]] = {}  # graph: the order and path that gave it
        self._automorphisms: list[dict[int, int]] = []
        self._best_traces: tuple[Trace, ...] | None = None
        self.best_order: list[int] = []

    def explore(self, colors: Colors, path: tuple[int, ...], traces: tuple[Trace, ...]) -> int:
        """Visits the subtree below `path`. Returns the length of the path at which the search continues."""
        colors, trace = self._refine(colors)
        traces = (*traces, trace)
        parent = len(path) - 1
        if self._best_traces is not None and traces > self._best_traces[: len(traces)]:
            return parent
        cell = _first_large_cell(colors)
        if not cell:
            return self._leaf(colors, path, traces)
        visited: set[int] = set()
        for node in cell:
            if self._orbit(node, fixed=path) & visited:
                continue
            visited.add(node)
            first = [color + (color == colors[node] and other != node) for other, color in enumerate(colors)]
            level = self.explore(first, (*path, node), traces)
            if level < len(path):
                return level
        return parent

    def _refine(self, colors: Colors) -> tuple[Colors, Trace]:
        """Splits cells until no cell splits. The trace does not depend on the numbering; if every cell has one node, it
        is the graph."""
        while True:
            keys = [
                (
                    colors[node],
                    tuple(sorted(colors[source] for source in self._inputs[node])),
                    tuple(sorted(colors[reader] for reader in self._readers[node])),
                )
                for node in range(len(colors))
            ]
            refined = _positions(keys)
            if refined == colors:
                return colors, tuple(sorted(keys))
            colors = refined

    def _leaf(self, colors: Colors, path: tuple[int, ...], traces: tuple[Trace, ...]) -> int:
        order = sorted(range(len(colors)), key=colors.__getitem__)
        graph = traces[-1]
        if graph in self._leaves:
            # The automorphism fixes the nodes that both paths share, and maps the branch of the earlier leaf to this
            # branch. So the rest of this branch gives nothing new.
            earlier_order, earlier_path = self._leaves[graph]
            self._automorphisms.append(dict(zip(earlier_order, order, strict=True)))
            shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(path, earlier_path, strict=False))
            return len(list(shared))
        self._leaves[graph] = (order, path)
        if self._best_traces is None or traces < self._best_traces:
            self._best_traces, self.best_order = traces, order
        return len(path) - 1

    def _orbit(self, node: int, fixed: tuple[int, ...]) -> set[int]:
        """The nodes to which a node is mapped by the known automorphisms that fix the `fixed` nodes."""
        usable = [mapping for mapping in self._automorphisms if all(mapping[other] == other for other in fixed)]
        orbit, pending = {node}, [node]
        while pending:
            last = pending.pop()
            reached = {mapping[last] for mapping in usable} - orbit
            orbit |= reached
            pending += reached
        return orbit


def _positions(keys: Sequence[Any]) -> Colors:
    """For each key, how many keys are smaller."""
    first: dict[Any, int] = {}
    for position, key in enumerate(sorted(keys)):
        first.setdefault(key, position)
    return [first[key] for key in keys]


def _first_large_cell(colors: Colors) -> list[int]:
    sizes = collections.Counter(colors)
    color = min((color for color, size in sizes.items() if size > 1), default=None)
    return [node for node in range(len(colors)) if colors[node] == color]
