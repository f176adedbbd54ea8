"""A search as the benchmarks run it: in a store that is thrown away, without its live view."""

import contextlib
import io
import tempfile
from typing import Any

import automl
from automl.results import Child


def trained_children(children: int, **options: Any) -> list[Child]:
    """The first so many children that were trained, in the order of their numbers; `options` as `automl.search` takes
    them."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        result = automl.search("benchmark", store=f"{folder}/benchmark.db", children=children, **options)
        return [child for child in result.children if child.state == "trained"][:children]
