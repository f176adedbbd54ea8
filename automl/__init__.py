"""Machines that design machine learning: a recurrent controller searches networks, cells and rules through SQL.

import automl

result = automl.search("first", task="digits", children=20)
result.best.export("keras", "best.keras")
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl.results import Result, resume, retry, search
    from automl.stores import open_store
    from search_spaces.decisions import Choice, Links

__version__ = "0.2.0.dev0"
__all__ = ["Choice", "Links", "Result", "open_store", "resume", "search"]
__all__ = ["Choice", "Links", "Result", "open_store", "resume", "retry", "search"]

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SIBLINGS = ("child_trainers", "controllers", "db", "search_spaces")
_HOMES = {
    "Choice": "search_spaces.decisions",
    "Links": "search_spaces.decisions",
    "Result": "automl.results",
    "open_store": "automl.stores",
    "resume": "automl.results",
    "retry": "automl.results",
    "search": "automl.results",
}


def _check_siblings() -> None:
    """Four of our packages have names that a stranger's may have too. Looks where they would come from, importing none.

    Raises:
        ImportError: a folder earlier on the path has one of that name.
    """
    for name in _SIBLINGS:
        spec = importlib.util.find_spec(name)
        found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or []), None)
        if found is None or os.path.dirname(os.path.dirname(os.path.abspath(found))) != _ROOT:
            raise ImportError(
                f"automl needs its own package {name!r} in {_ROOT}, but Python finds {found or 'none'} first; run "
                "Python from another folder or with -P, or rename that package."
            )


def __getattr__(name: str) -> Any:
    # `import automl` must stay cheap: TensorFlow, SQLAlchemy and the rest are imported when something is used.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'automl' has no attribute {name!r}")


_check_siblings()
