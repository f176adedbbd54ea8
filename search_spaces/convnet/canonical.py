"""One numbering for all numberings of a graph: a canonical order of the nodes of a labelled acyclic graph."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from typing import Any

Colors = list[int]  # by node: how many nodes stand in cells before its own, so a cell that splits moves no other
Trace = tuple[Any, ...]


def canonical_order(labels: Sequence[tuple[int, ...]], inputs: Sequence[Sequence[int]]) -> list[int]:
    """Nodes in a topological order that, renumbered, makes isomorphic labelled graphs equal.

    By individualisation and refinement (McKay 1981, "Practical graph isomorphism"):

    1. Nodes are sorted by their distance from the start (the longest way, so inputs come before those that read them)
       and their label. Twins, alike in label, inputs and readers, are numbered at will: to swap them changes nothing.
    2. Cells of nodes that still look alike are split by the cells that a node's inputs and its readers are in, until
       nothing splits (colour refinement). For most networks every cell then has one node, and this is the order.
    3. Otherwise each node of the first larger cell is put first in turn, and 2 goes on from there: a tree with orders
       as leaves. The one with the smallest trace, which is what refinement saw on the way to it, is taken.
    4. Two leaves with equal graphs show an automorphism. The tree is left out where one maps it to a part that was
       seen, as are branches whose trace is larger than the smallest so far. So m equal parts cost about m leaves for
       each node put first, not m!.

    Args:
        labels: of each node.
        inputs: of each node, indices of nodes before it.
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
        likeness = (label, frozenset(inputs[node]), frozenset(readers[node]))
        keys.append((distances[node], label, num_twins[likeness]))
        num_twins[likeness] += 1
    tree = _Tree(inputs, readers)
    tree.explore(_positions(keys), path=(), traces=())
    return tree.best_order


class _Tree:
    """The search tree of `canonical_order`; a node of it is the path of graph nodes that were put first."""

    def __init__(self, inputs: Sequence[Sequence[int]], readers: Sequence[Sequence[int]]) -> None:
        self._inputs = inputs
        self._readers = readers
        self._leaves: dict[Trace, tuple[list[int], tuple[int, ...]]] = {}  # graph: the order and path that gave it
        self._automorphisms: list[dict[int, int]] = []
        self._best_traces: tuple[Trace, ...] | None = None
        self.best_order: list[int] = []

    def explore(self, colors: Colors, path: tuple[int, ...], traces: tuple[Trace, ...]) -> int:
        """Visits the part of the tree below `path`; returns the length of the path on which the search goes on."""
        colors, trace = self._refine(colors)
        traces = (*traces, trace)
        parent = len(path) - 1
        if self._best_traces is not None and traces > self._best_traces[: len(traces)]:
            return parent
        cell = _first_large_cell(colors)
        if not cell:
            return self._leaf(colors, path, traces)
        tried: set[int] = set()
        for node in cell:
            if self._orbit(node, fixed=path) & tried:
                continue
            tried.add(node)
            first = [color + (color == colors[node] and other != node) for other, color in enumerate(colors)]
            level = self.explore(first, (*path, node), traces)
            if level < len(path):
                return level
        return parent

    def _refine(self, colors: Colors) -> tuple[Colors, Trace]:
        """Splits cells until nothing splits; the trace is the same for all numberings, and the graph if all split."""
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
            # The automorphism fixes what both paths share and maps the branch of the earlier leaf to this one, so the
            # rest of this branch has nothing new.
            earlier_order, earlier_path = self._leaves[graph]
            self._automorphisms.append(dict(zip(earlier_order, order, strict=True)))
            shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(path, earlier_path, strict=False))
            return len(list(shared))
        self._leaves[graph] = (order, path)
        if self._best_traces is None or traces < self._best_traces:
            self._best_traces, self.best_order = traces, order
        return len(path) - 1

    def _orbit(self, node: int, fixed: tuple[int, ...]) -> set[int]:
        """Where the known automorphisms that leave the `fixed` nodes alone can take a node."""
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
