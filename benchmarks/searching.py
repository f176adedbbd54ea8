"""Runs a search for a benchmark, in a temporary store and without a live view."""

import contextlib
import io
import tempfile
from typing import Any

import automl
from automl.controllers import NETWORKS
from automl.db.records import Child


def policy_alone(controller: str) -> dict[str, Any]:
    """Options of `automl.search` for a controller, of `reinforce` and `ppo` without the reward model."""
    return {"controller": controller, "controller_preset": "plain" if controller in NETWORKS else None}


def searched_children(children: int, **options: Any) -> list[Child]:
    """All children, by number, of a search that trains `children` of them. `options` are those of `automl.search`.

    Raises:
        RuntimeError: the search trained fewer.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        result = automl.search("benchmark", store=f"{folder}/benchmark.db", children=children, **options)
        searched = result.children
    if sum(child.state == "trained" for child in searched) < children:
        raise RuntimeError(f"The search ended early: {result.ending}.")
    return searched


def trained_children(children: int, **options: Any) -> list[Child]:
    """The first `children` trained children of such a search; see `searched_children`."""
    return [child for child in searched_children(children, **options) if child.state == "trained"][:children]
