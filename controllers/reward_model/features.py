"""Children as rows of numbers: what the reward model compares."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from automl.search_spaces.decisions import Choice
from automl.search_spaces.numeric import Numeric
from automl.search_spaces.walk import Walk

SMOOTHNESS = 0.25  # the length, in units of `unit_value`, over which an ordered decision is compared
CENTRES = np.arange(-2, 11) / 8.0  # of the columns of an ordered decision, half a length apart
LINKS = "links"  # marks the groups that count links


class Row(NamedTuple):
    """One child.

    Attributes:
        columns: indices of its columns that are not 0.
        values: of these columns.
        counts: how often each option occurs in it, by index of the option in its group.
    """

    columns: tuple[int, ...]
    values: tuple[float, ...]
    counts: dict[int, int]


class Matrix(NamedTuple):
    """Children, one a row.

    Attributes:
        columns: float64 (children, columns).
        counts: float64 (children, options of all groups).
        basis: float64 (children, functions), the values of the explicit basis functions (`donors`), without donors
            none.
    """

    columns: np.ndarray
    counts: np.ndarray
    basis: np.ndarray


class Features:
    """The columns of a space, which grow with the decisions that its children turn out to have.

    Two children differ in a decision by 1 where its options differ or one of them lacks it; for an ordered decision, by
    1 - exp(-(u - v)^2 / (2 s^2)) with the `unit_value`s u and v. Each bit of a `Links` is a decision of its own.
    Written as a squared distance of columns, with a scale each, this needs a matrix product for all pairs of children:

        d(x, y) = sum_c scale_c (x_c - y_c)^2

    The columns of an ordered decision are Gaussians around `CENTRES`, with a norm of 1. Their products are the squared
    exponential above, because the convolution of two Gaussians is one (Rasmussen & Williams 2006, section 4.2.1).

    A group counts the options of all decisions that have the same options, whatever their names and kinds.

    Attributes:
        scales: of each column.
        owners: the number of the decision that each column belongs to.
    """

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.owners: list[int] = []
        self.num_decisions = 0
        self.num_counts = 0
        self._choices: dict[tuple[str, str], _Columns] = {}  # by name and kind: a name may have other options elsewhere
        self._bits: dict[tuple[str, int], int] = {}
        self._groups: dict[Any, int] = {}  # the index of the first option

    def add(self, walk: Walk) -> None:
        """Makes columns for the decisions of a child that have none yet."""
        for decision in walk.decisions:
            if isinstance(decision, Choice):
                if (decision.name, decision.kind) not in self._choices:
                    self._choices[decision.name, decision.kind] = self._new_choice(decision)
                continue
            for bit in range(decision.count):
                if (decision.name, bit) not in self._bits:
                    self._bits[decision.name, bit] = self._new_decision([1.0])[0]
            self._group((LINKS, decision.kind), 1)

    def row(self, walk: Walk) -> Row:
        """A finished child, without the decisions that have no columns."""
        columns: list[int] = []
        values: list[float] = []
        counts: dict[int, int] = {}
        for decision, answer in zip(walk.decisions, walk.answers.values(), strict=True):
            if isinstance(decision, Choice):
                of_choice = self._choices.get((decision.name, decision.kind))
                if of_choice is None:
                    continue
                columns += of_choice.indices[answer[0]]
                values += of_choice.values[answer[0]]
                place = None if of_choice.group is None else of_choice.group + answer[0]
                count = 1
            else:
                bits = [self._bits.get((decision.name, bit)) for bit, token in enumerate(answer) if token]
                known = [column for column in bits if column is not None]
                columns += known
                values += [1.0] * len(known)
                place, count = self._groups.get((LINKS, decision.kind)), sum(answer)
            if place is not None:
                counts[place] = counts.get(place, 0) + count
        return Row(tuple(columns), tuple(values), counts)

    @property
    def size(self) -> tuple[int, int]:
        """The number of columns, and of options of all groups."""
        return len(self.scales), self.num_counts

    def matrix(self, rows: Sequence[Row], size: tuple[int, int] | None = None) -> Matrix:
        """Children as a matrix.

        Args:
            size: an earlier `size`, which all rows fit; None for the present one.
        """
        num_columns, num_counts = size or self.size
        columns = np.zeros((len(rows), num_columns))
        counts = np.zeros((len(rows), num_counts))
        _fill(columns, [(row.columns, row.values) for row in rows])
        _fill(counts, [(row.counts.keys(), row.counts.values()) for row in rows])
        return Matrix(columns, counts, np.zeros((len(rows), 0)))

    def _new_choice(self, choice: Choice) -> _Columns:
        """Columns for a decision, of which the first says that a child has it."""
        count = len(choice.options)
        if isinstance(choice, Numeric):
            units = np.array([choice.unit_value(token) for token in range(count)])
            bumps = np.exp(-((units[:, np.newaxis] - CENTRES) ** 2) / SMOOTHNESS**2)
            bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
            indices = tuple(self._new_decision([0.5] * (len(CENTRES) + 1)))
            return _Columns((indices,) * count, tuple((1.0, *row) for row in bumps.tolist()), None)
        first, *others = self._new_decision([0.5] * (count + 1))
        group = self._group(tuple(map(repr, choice.options)), count)
        return _Columns(tuple((first, column) for column in others), ((1.0, 1.0),) * count, group)

    def _new_decision(self, scales: list[float]) -> range:
        first = len(self.scales)
        self.scales += scales
        self.owners += [self.num_decisions] * len(scales)
        self.num_decisions += 1
        return range(first, len(self.scales))

    def _group(self, key: Any, size: int) -> int:
        first = self._groups.get(key)
        if first is None:
            first = self._groups[key] = self.num_counts
            self.num_counts += size
        return first


def _fill(target: np.ndarray, rows: Sequence[tuple[Collection[int], Collection[float]]]) -> None:
    """Sets entries of each row: their places, and their values."""
    indices = np.repeat(np.arange(len(rows)), [len(places) for places, _ in rows])
    places = list(itertools.chain.from_iterable(places for places, _ in rows))
    target[indices, places] = list(itertools.chain.from_iterable(values for _, values in rows))


class _Columns(NamedTuple):
    """Of one `Choice`: the columns that are not 0 for each token and their values, and the index of its first option in
    its group."""

    indices: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]
    group: int | None
