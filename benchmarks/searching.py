"""A search as the benchmarks run it: in a store that is thrown away, without its live view."""

import contextlib
import io
import tempfile
from typing import Any

import automl
from automl.db.records import Child


def searched_children(children: int, **options: Any) -> list[Child]:
    """All children of a search that trains so many, by number; `options` as `automl.search` takes them.

    Raises:
        RuntimeError: the search ended before it had trained them.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        result = automl.search("benchmark", store=f"{folder}/benchmark.db", children=children, **options)
        found = result.children
    if sum(child.state == "trained" for child in found) < children:
        raise RuntimeError(f"The search ended early: {result.ending}.")
    return found


def trained_children(children: int, **options: Any) -> list[Child]:
    """The first so many that were trained; see `searched_children`."""
    return [child for child in searched_children(children, **options) if child.state == "trained"][:children]
