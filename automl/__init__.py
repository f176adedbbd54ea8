"""AutoML: a controller searches for networks, recurrent cells and update rules, and stores the search in SQL.

import automl

result = automl.search("first", task="digits", children=20)
result.best.export("keras", "best.keras")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from automl.old_names import install_finder

if TYPE_CHECKING:
    from automl.benching.bench import bench
    from automl.child_trainers.outcome import Outcome
    from automl.child_trainers.task import Task
    from automl.listeners.base import SearchListener
    from automl.paths import open_store
    from automl.results import Result, resume, retry, search
    from automl.search_spaces.decisions import Choice, Links
    from automl.search_spaces.numeric import Integer, Ordinal, Real

__version__ = "0.2.0.dev0"
__all__ = [
    "Choice",
    "Integer",
    "Links",
    "Ordinal",
    "Outcome",
    "Real",
    "Result",
    "SearchListener",
    "Task",
    "bench",
    "open_store",
    "resume",
    "retry",
    "search",
]

_HOMES = {
    "Choice": "automl.search_spaces.decisions",
    "Integer": "automl.search_spaces.numeric",
    "Links": "automl.search_spaces.decisions",
    "Ordinal": "automl.search_spaces.numeric",
    "Outcome": "automl.child_trainers.outcome",
    "Real": "automl.search_spaces.numeric",
    "Result": "automl.results",
    "SearchListener": "automl.listeners.base",
    "Task": "automl.child_trainers.task",
    "bench": "automl.benching.bench",
    "open_store": "automl.paths",
    "resume": "automl.results",
    "retry": "automl.results",
    "search": "automl.results",
}


def __getattr__(name: str) -> Any:
    # `import automl` must stay fast: TensorFlow, SQLAlchemy and others are imported on first use.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'automl' has no attribute {name!r}")


install_finder()
