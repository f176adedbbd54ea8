"""A table of measured children in memory, and its reader for CSV files."""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.outcome import Goal
from automl.search_spaces.names import validate_choice
from automl.search_spaces.spec import canonical_json

Value = int | float | str
Key = tuple[Value, ...]
MOST_VALUES = 1000  # of a column; a softmax of the policy has one output for each


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Children and their measured results.

    Attributes:
        name: the name of the table in messages.
        columns: the columns that are decisions, by name: their values, ascending.
        rows: the results of each child by name. A key has one value for each of `columns`, in their order.
        ordered: the columns whose values are numbers with an order.
    """

    name: str
    columns: Mapping[str, tuple[Value, ...]]
    rows: Mapping[Key, Mapping[str, float]]
    ordered: tuple[str, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """A sha256 over columns and rows, in hex. It depends neither on the name nor on the order of the rows."""
        rows = sorted(canonical_json([list(key), dict(results)]) for key, results in self.rows.items())
        return hashlib.sha256("\n".join([canonical_json(list(self.columns.items())), *rows]).encode()).hexdigest()


def load_csv(path: Path, goal: Goal | None, metrics: Sequence[str] = ()) -> Table:
    """Reads a CSV file with a header. Every column is a decision, except the score and the metrics.

    The values of a column are numbers if all of them are, else texts.

    Args:
        goal: names the column of the score.
        metrics: further columns of numbers that are results of a row and no decisions.

    Raises:
        DataError: the file cannot be read or is not such a table, or `goal` is None.
        UnknownNameError: the file does not have the column of the score or of a metric.
    """
    header, lines = _read(path)
    if goal is None:
        raise DataError(
            f"{path} is a table of choices and a score; say which column is the score with --maximize COLUMN or "
            f"--minimize COLUMN: {', '.join(header)}."
        )
    for column in (goal.metric, *metrics):
        validate_choice(f"column of {path.name}", column, header)
    results = list(dict.fromkeys((goal.metric, *metrics)))
    chosen = [name for name in header if name not in results]
    if not chosen:
        raise DataError(f"{path} has no column of choices beside {' and '.join(results)}; add one for each decision.")
    values = {name: _values(path, name, [cells[name] for _, cells in lines]) for name in chosen}
    rows: dict[Key, dict[str, float]] = {}
    at: dict[Key, int] = {}
    for index, (line, cells) in enumerate(lines):
        key = tuple(values[name][index] for name in chosen)
        if key in rows:
            raise DataError(f"Lines {at[key]} and {line} of {path} are the same choice; keep one row for each choice.")
        at[key] = line
        rows[key] = {name: _number(path, line, name, cells[name]) for name in results}
    columns = {name: _options(path, name, values[name]) for name in chosen}
    return Table(path.name, columns, rows, tuple(name for name, options in columns.items() if _is_ordered(options)))


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header; and for each row, its line in the file and its cells by column."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            found = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file in UTF-8: {error}.") from None
    if len(found) < 2:
        what = "has no row below its header" if found else "is empty"
        raise DataError(f"{path} {what}; a table has a header and one row for each choice.")
    (_, header), *rows = found
    twice = next((name for name, count in collections.Counter(header).items() if count > 1), None)
    if twice is not None or "" in header:
        what = "a column without a name" if "" in header else f"two columns {twice!r}"
        raise DataError(f"The header of {path} has {what}; give each column a name of its own.")
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"Line {line} of {path} has {len(row)} columns and the header has {len(header)}; each row has one "
                "value for each column."
            )
        if "" in row:
            raise DataError(f"Line {line} of {path} has no value in the column {header[row.index('')]!r}; add one.")
    return header, [(line, dict(zip(header, row, strict=True))) for line, row in rows]


def _values(path: Path, name: str, texts: Sequence[str]) -> list[Value]:
    """The values of a column: whole numbers, or else finite numbers, if all different texts are different numbers; else
    the texts."""
    distinct = set(texts)
    for kind in (int, float):
        try:
            numbers = {text: kind(text) for text in distinct}
            finite = all(map(math.isfinite, numbers.values()))
        except (ValueError, OverflowError):
            continue
        if finite and len(set(numbers.values())) == len(distinct):
            return [numbers[text] for text in texts]
    return list(texts)


def _options(path: Path, name: str, values: Sequence[Value]) -> tuple[Value, ...]:
    options = tuple(sorted(set(values)))
    if len(options) > MOST_VALUES:
        raise DataError(
            f"The column {name!r} of {path} has {len(options):,} different values, and a decision has at most "
            f"{MOST_VALUES:,}; if it is a result and no choice, name it with --set 'task.metrics=[\"{name}\"]'."
        )
    return options


def _is_ordered(options: Sequence[Value]) -> bool:
    return len(options) > 1 and not any(isinstance(option, str) for option in options)


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"Line {line} of {path} has {text!r} in the column {name!r}, which must be a finite number.")
    return number
