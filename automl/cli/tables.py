"""Plain tables, for pipes and for commands that must be fast: importing rich takes a tenth of a second."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from automl.child_views import ignores_input, metrics_text
from automl.cli.terminal import escaped, print
from automl.db.records import Child, Search
from automl.search_spaces.views import spec_line
from automl.wording import format_number, quantity

GAP = 2  # spaces between two columns
IGNORES = " (ignores its input)"
READABLE = 40  # the fewest columns for a spec beside the numbers; if there are fewer, it is put below them


def terminal_width() -> int | None:
    """The number of columns of the terminal, or COLUMNS if that is set; None for a pipe or a file."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdecimal():
        return None
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def print_children(children: Sequence[Child], search: Search) -> None:
    """Prints trained children, each with its numbers and its spec."""
    for line in children_lines(children, search, terminal_width()):
        print(line)


def children_lines(
    children: Sequence[Child], search: Search, width: int | None, *, most_lines: int | None = None
) -> list[str]:
    """Trained children as lines of a table. A spec that does not fit beside the numbers is put below them.

    Args:
        most_lines: the most lines of one spec; the rest is cut.
    """
    for heading, num_metrics in (("metrics", 2), ("metric", 1)):  # one metric if two leave no room for the spec
        headings = ["child", "reward", heading, "params", "FLOPs", "seconds", "spec"]
        rows = [
            [
                str(child.number),
                format_number(child.reward or 0.0),
                ", ".join(metrics_text(child.metrics, search)[:num_metrics]) or "-",
                quantity(child.params),
                quantity(child.flops),
                "-" if child.seconds is None else f"{child.seconds:.1f}",
                spec_line(child.spec, search.space) + (IGNORES if ignores_input(child) else ""),
            ]
            for child in children
        ]
        widths = _widths(headings, rows)
        if width is None or _needed(widths, range(len(headings) - 1)) + GAP + min(widths[-1], READABLE) <= width:
            break
    left = ("metrics", "metric", "spec")
    drop = ("seconds", "FLOPs", "params", "metric")
    return table_lines(headings, rows, left, width=width, drop=drop, below="spec", most_lines=most_lines)


def print_table(
    headings: list[str], rows: list[list[str]], *, drop: Sequence[str] = (), below: str | None = None
) -> None:
    """Prints a table with left-aligned columns; see `table_lines` for `drop` and `below`."""
    for line in table_lines(headings, rows, width=terminal_width(), drop=drop, below=below):
        print(line)


def fits(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table is no wider than the terminal."""
    width = terminal_width()
    return width is None or _needed(_widths(headings, rows), range(len(headings))) <= width


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[str] | None = None,
    *,
    width: int | None = None,
    drop: Sequence[str] = (),
    below: str | None = None,
    most_lines: int | None = None,
) -> list[str]:
    """The lines of a table, with columns as wide as their content.

    Args:
        left: the columns that are aligned to the left; None for all.
        width: the longest line, or None for no limit.
        drop: columns that are left out, in this order, while lines are longer than `width`.
        below: the column whose cells are wrapped, or put below the other cells, if lines are longer than `width`.
        most_lines: the most lines of a wrapped cell; the rest is cut.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = _widths(headings, rows)
    kept = list(range(len(headings)))
    long = None  # the column that is wrapped or put below
    room = 0
    if width is not None and _needed(widths, kept) > width and below is not None:
        long = headings.index(below)
        kept.remove(long)
        room = width - _needed(widths, kept) - GAP
    for name in drop:
        if width is None or _needed(widths, kept) <= width:
            break
        kept.remove(headings.index(name))
    if long is not None and room >= READABLE:
        offset = width - room if width is not None else 0
    elif long is not None:
        offset = GAP
    lines = []
    for row in [headings, *rows]:
        cells = [
            row[index].ljust(widths[index])
            if left is None or headings[index] in left
            else row[index].rjust(widths[index])
            for index in kept
        ]
        line = (" " * GAP).join(cells)
        if long is None or width is None:
            lines.append(line.rstrip())
            continue
        parts = _wrapped(row[long], width - offset, most_lines)
        if room >= READABLE:
            lines += [f"{line}{' ' * GAP}{parts[0]}".rstrip(), *(" " * offset + part for part in parts[1:])]
        else:
            lines.append(line.rstrip())
            lines += [" " * offset + part for part in parts] if row is not headings else []
    return lines


def print_paragraph(text: str) -> None:
    """Prints a text, wrapped to the terminal's width. Further lines are indented four columns further."""
    text = escaped(text)
    width = terminal_width()
    indent = len(text) - len(text.lstrip())
    if width is None or len(text) <= width:
        print(text)
        return
    for number, part in enumerate(_wrapped(text.lstrip(), width - indent - 4)):
        print(" " * (indent + (4 if number else 0)) + part)


def _wrapped(text: str, width: int, most_lines: int | None = None) -> list[str]:
    width = max(1, width)
    return textwrap.wrap(text, width, break_on_hyphens=False, max_lines=most_lines, placeholder="…") or [""]


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]


def _needed(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[index] for index in kept) + GAP * max(0, len(kept) - 1)
