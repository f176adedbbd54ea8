"""Children as rows of numbers: what the reward model compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from automl.search_spaces.decisions import Choice
from automl.search_spaces.numeric import Numeric
from automl.search_spaces.walk import Walk

MAX_LEVELS = 32  # columns of an ordered decision
LINKS = "links"  # marks the groups that count links


class Row(NamedTuple):
    """One child.

    Attributes:
        columns: indices of the binary columns that are 1.
        counts: how often each option occurs in it, by index of the option in its group.
    """

    columns: tuple[int, ...]
    counts: dict[int, int]


class Matrix(NamedTuple):
    """Children, one a row.

    Attributes:
        binary: float64 (children, columns), 0 or 1.
        counts: float64 (children, options of all groups).
        basis: float64 (children, functions), the values of the explicit basis functions (`donors`), without donors
            none.
    """

    binary: np.ndarray
    counts: np.ndarray
    basis: np.ndarray


class Features:
    """The columns of a space, which grow with the decisions that its children turn out to have.

    Two children differ in a decision by 1 where its options differ or one of them lacks it; for an ordered decision, by
    the distance of `unit_value`, from 0 to 1. Each bit of a `Links` is a decision of its own. Written as a distance of
    binary columns, with a scale each, this needs a matrix product for all pairs of children:

        d(x, y) = sum_c scale_c |x_c - y_c| = sum_c scale_c (x_c + y_c - 2 x_c y_c)

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
        self._choices: dict[str, _Columns] = {}
        self._bits: dict[tuple[str, int], int] = {}
        self._groups: dict[Any, int] = {}  # the index of the first option

    def add(self, walk: Walk) -> None:
        """Makes columns for the decisions of a child that have none yet."""
        for decision in walk.decisions:
            if isinstance(decision, Choice):
                if decision.name not in self._choices:
                    self._choices[decision.name] = self._new_choice(decision)
                continue
            for bit in range(decision.count):
                if (decision.name, bit) not in self._bits:
                    self._bits[decision.name, bit] = self._new_decision([1.0])[0]
            self._group((LINKS, decision.kind), 1)

    def row(self, walk: Walk) -> Row:
        """A finished child, without the decisions that have no columns."""
        columns: list[int] = []
        counts: dict[int, int] = {}
        for decision, answer in zip(walk.decisions, walk.answers.values(), strict=True):
            if isinstance(decision, Choice):
                of_choice = self._choices.get(decision.name)
                if of_choice is None:
                    continue
                columns += of_choice.of_token[answer[0]]
                place = None if of_choice.group is None else of_choice.group + answer[0]
                count = 1
            else:
                bits = [self._bits.get((decision.name, bit)) for bit, token in enumerate(answer) if token]
                columns += [column for column in bits if column is not None]
                place, count = self._groups.get((LINKS, decision.kind)), sum(answer)
            if place is not None:
                counts[place] = counts.get(place, 0) + count
        return Row(tuple(columns), counts)

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
        binary = np.zeros((len(rows), num_columns))
        counts = np.zeros((len(rows), num_counts))
        for index, row in enumerate(rows):
            binary[index, list(row.columns)] = 1.0
            for place, count in row.counts.items():
                counts[index, place] = count
        return Matrix(binary, counts, np.zeros((len(rows), 0)))

    def _new_choice(self, choice: Choice) -> _Columns:
        """Columns for a decision, of which the first says that a child has it."""
        if isinstance(choice, Numeric):
            units = [choice.unit_value(token) for token in range(len(choice.options))]
            levels = np.unique(units)
            if len(levels) > MAX_LEVELS:
                levels = np.linspace(0.0, 1.0, MAX_LEVELS + 1)
            # A number between two levels counts as the lower one.
            columns = self._new_decision([0.5, *np.diff(levels).tolist()])
            reached = np.searchsorted(levels, units, side="right")
            of_token = tuple(tuple(columns[:count]) for count in reached.tolist())
            group = None
        else:
            columns = self._new_decision([0.5] * (len(choice.options) + 1))
            of_token = tuple((columns[0], column) for column in columns[1:])
            group = self._group(tuple(map(repr, choice.options)), len(choice.options))
        return _Columns(of_token, group)

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


class _Columns(NamedTuple):
    """Of one `Choice`: the columns that are 1 for each token, and the index of its first option in its group."""

    of_token: tuple[tuple[int, ...], ...]
    group: int | None
