"""The rows of a table of measured children as a space: one decision for each column."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.names import validate_choice
from automl.search_spaces.numeric import Ordinal
from automl.search_spaces.spec import Json
from automl.search_spaces.values import Values, values_of

KINDS = ("shared", "separate")


@dataclasses.dataclass(frozen=True)
class Row(Values):
    """A child of one value for each column. The table may lack this row."""

    @classmethod
    def from_json(cls, stored: Json) -> Row:
        return cls(values_of(stored))


def table_row(
    *, columns: Sequence[tuple[str, Sequence[Json]]] = (), ordered: Sequence[str] = (), kinds: str = "shared"
) -> Generator[Decision, Any, Row]:
    """Yields one `Choice` or `Ordinal` for each column, in the table's order, and returns the `Row`.

    Args:
        columns: the name and the values of each column. A new search gets them from its task `table:FILE` and keeps
            them, so that its children can be read without the table.
        ordered: the columns whose values are numbers with an order; each is an `Ordinal`.
        kinds: `shared`: columns whose names differ only in digits and whose values are equal are decisions of one kind;
            `separate`: each column is a separate kind.

    Raises:
        ValueError: at the first step, if there are no columns, or if an argument has a wrong value.
    """
    if kinds not in KINDS:
        raise ValueError(f"space.kinds is {kinds!r}; it is {' or '.join(KINDS)}.")
    if not columns:
        raise ValueError("The decisions of this space are the columns of a table; name one with --task table:FILE.csv.")
    if isinstance(ordered, str) or not all(isinstance(name, str) for name in ordered):
        raise ValueError(f'space.ordered is {ordered!r}; it must be a list of columns, for example ["width"].')
    for name in ordered:
        validate_choice("column of the table", name, [column for column, _ in columns])
    values = {}
    for name, options in columns:
        decision = Ordinal if name in ordered else Choice
        values[name] = yield decision(name, tuple(options), kind=name if kinds == "separate" else "")
    return Row(values)


PRESETS: dict[str, dict[str, Any]] = {"shared": {"kinds": "shared"}, "separate": {"kinds": "separate"}}

SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {}
