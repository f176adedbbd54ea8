"""Plain tables, for pipes and for commands that must answer at once: importing rich takes a tenth of a second."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from automl.cli.terminal import escaped, print
from automl.standing import figure, ignores_input, quantity, spec_line
from db.records import Child

IGNORES = " (ignores what it reads)"


def print_children(children: Sequence[Child], space: str) -> None:
    """Trained children of a space, one a line."""
    rows = []
    for child in children:
        metrics = {key: value for key, value in (child.metrics or {}).items() if isinstance(value, float)}
        shown = ", ".join(f"{key} {figure(value)}" for key, value in list(metrics.items())[:2]) or "-"
        shown += IGNORES if ignores_input(child) else ""
        seconds = "-" if child.seconds is None else f"{child.seconds:.1f}"
        cells = [
            str(child.number),
            figure(child.reward or 0.0),
            shown,
            quantity(child.params),
            quantity(child.flops),
            seconds,
        ]
        rows.append([*cells, spec_line(child.spec, space)])
    print_table(["child", "reward", "metrics", "params", "FLOPs", "seconds", "spec"], rows, left=("metrics", "spec"))


def print_table(headings: list[str], rows: list[list[str]], left: tuple[str, ...] | None = None) -> None:
    """Columns as wide as their content; on a terminal, a line is cut at its edge."""
    rows = [list(map(escaped, row)) for row in rows]
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    width = shutil.get_terminal_size((120, 24)).columns
    for row in [headings, *rows]:
        cells = [
            cell.ljust(widths[index]) if left is None or headings[index] in left else cell.rjust(widths[index])
            for index, cell in enumerate(row)
        ]
        line = "  ".join(cells).rstrip()
        print(line if len(line) <= width or not sys.stdout.isatty() else line[: width - 1] + "…")
