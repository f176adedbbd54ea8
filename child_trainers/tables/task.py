"""The task that looks rewards up in a table."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.outcome import Goal, InvalidResultError, Outcome, read_outcome
from automl.child_trainers.tables.nasbench_macro import GOAL, load_nasbench_macro
from automl.child_trainers.tables.table import Key, Table, load_csv
from automl.child_trainers.task import Report, Task
from automl.search_spaces.spec import Json
from automl.search_spaces.values import Values

MACRO = "nas-bench-macro"
MOST_NAMED = 6  # columns listed in one sentence


@dataclasses.dataclass(frozen=True)
class TableRecipe:
    """The constants of reading a table.

    Attributes:
        metrics: columns, beside the score, that are results of a row and no decisions. They are stored with a child.
    """

    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = self.metrics
        if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
            raise ValueError(f'task.metrics is {given!r}; it must be a list of columns: ["params"].')
        object.__setattr__(self, "metrics", tuple(given))


class TableLookup(Task):
    """Looks the reward of a child up in a table; nothing is trained.

    The values of a child's decisions identify its row. The child is a spec of the space `table-row`, or a JSON object
    of the user's own space. A child that is not in the table is not admitted.

    Args:
        name: `table:PATH` for a CSV file, or `table:nas-bench-macro`.
        recipe: the constants of reading the table.
        data_dir: the folder with data sets, for a table with a name.
        goal: names the column of the score; None for the default score of a table with a name.
        fingerprint: the fingerprint of the table with which the search began; another table is refused. None accepts
            every table.
        others: arguments that only tasks with training use.
    """

    recipe_kind = TableRecipe
    reward_words: ClassVar[str] = "the score in the table"
    ignores_compute = "a table, from which rewards are looked up"
    fixed_options = ("metrics",)

    def __init__(
        self,
        name: str,
        recipe: TableRecipe,
        *,
        data_dir: Path | None = None,
        goal: Goal | None = None,
        fingerprint: str | None = None,
        **others: Any,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self._place = name.partition(":")[2]
        self._data_dir = data_dir
        self._goal = goal or (GOAL if self._place == MACRO else None)
        self._expected = fingerprint
        if self._goal is not None:
            self.metric = self._goal.metric

    @functools.cached_property
    def table(self) -> Table:
        """The table, read once. Raises DataError or UnknownNameError."""
        if self._place == MACRO:
            if self.recipe.metrics:
                raise ValueError(f"task.metrics has no effect on {MACRO}, whose results are known; drop it.")
            table = load_nasbench_macro(self._data_dir, self._goal or GOAL)
            way_out = "put it back"
        else:
            path = Path(self._place).expanduser()
            if self._expected is not None and not os.path.isfile(path):
                raise DataError(f"{path} is not there any more; say where this table is now with --data table:PATH.")
            table = load_csv(path, self._goal, self.recipe.metrics)
            way_out = "put it back, name its new place with --data table:PATH"
        if self._expected is not None and self._expected != table.fingerprint:
            raise DataError(
                f"{self._place} is not the table that the search began with; {way_out}, or start a new search with "
                "this one."
            )
        return table

    @property
    def fingerprint(self) -> str | None:  # type: ignore[override]
        return self.table.fingerprint

    def prepare(self) -> None:
        _ = self.table

    def check_goal(self) -> None:
        _ = self.table  # reading it checks the columns

    def check(self, spec: object) -> None:
        columns, values = list(self.table.columns), _values(spec)
        if values is None:
            raise ValueError(
                f"A table is looked up by its columns ({_listed(columns)}), and this space makes "
                f"{type(spec).__name__}; drop --space to use the table's own."
            )
        missing = next((name for name in columns if name not in values), None)
        strange = next((name for name in values if name not in self.table.columns), None)
        if missing is not None:
            raise ValueError(f"The children of this space have no value for the column {missing!r} of {self.name}.")
        if strange is not None and isinstance(spec, Values):
            raise ValueError(
                f"The decision {strange!r} of this search is no column of choices of {self.name}; start a new search "
                "with this table and score."
            )

    def admits(self, spec: object) -> bool:
        return self._key(spec) in self.table.rows

    def listed(self) -> Iterable[Mapping[str, Any]]:
        return (dict(zip(self.table.columns, key, strict=True)) for key in self.table.rows)

    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        results = self.table.rows.get(self._key(spec))
        if results is None:
            raise InvalidResultError(f"{self.name} has no row for this child.")
        return read_outcome(dict(results), self._goal)

    def optimum(self, spec: object, admits: Callable[[Mapping[str, Any]], bool] | None = None) -> float | None:
        """The best score of the rows that the narrowing leaves; None if it leaves none, or if the names of a user's
        decisions are not those of the columns."""
        rows = zip(self.listed(), self.table.rows.values(), strict=True)
        goal = self._goal
        assert goal is not None  # the table has been read
        scores = [results[goal.metric] for values, results in rows if admits is None or admits(values)]
        if not scores:
            return None
        return -min(scores) if goal.minimize else max(scores)

    def data_summary(self) -> DataSummary:
        table = self.table
        number = 1
        for options in table.columns.values():
            number *= len(options)
        share = f"all {number:,}" if number == len(table.rows) else f"{len(table.rows):,} of {number:,}"
        return DataSummary(f"a table with {share} choices of {len(table.columns)} columns", ())

    def constants(self) -> dict[str, Any]:
        return dataclasses.asdict(self.recipe)

    def describe(self) -> dict[str, Any]:
        return {"data": self.name}

    def _key(self, spec: object) -> Key:
        values = _values(spec) or {}
        key = (values.get(name) for name in self.table.columns)
        # No table has lists or objects, and they cannot be keys of a dict.
        return tuple(value if isinstance(value, int | float | str) else "" for value in key)


def table_columns(name: str, options: Mapping[str, Any], *, data_dir: Path | None, goal: Goal | None) -> dict[str, Any]:
    """The options of the space `table-row` for a table: its columns of choices with their values, and the
    columns whose values have an order, as JSON.

    Args:
        name: the task's name, `table:PATH`.
        options: the task's options.

    Raises:
        ValueError: the table cannot be read.
    """
    known = [field.name for field in dataclasses.fields(TableRecipe)]
    given = {option: value for option, value in options.items() if option in known}
    table = TableLookup(name, TableRecipe(**given), data_dir=data_dir, goal=goal).table
    columns = [[column, list(values)] for column, values in table.columns.items()]
    return {"columns": columns} | ({"ordered": list(table.ordered)} if table.ordered else {})


def _values(spec: object) -> Mapping[str, Json] | None:
    if isinstance(spec, Values):
        return spec.values
    return spec if isinstance(spec, Mapping) else None


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"
