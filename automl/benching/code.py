"""Identifies the code that runs the searches of a bench."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

import automl

# The sources that determine the children that a search proposes, and their rewards.
PARTS = (
    "controllers",
    "search_spaces",
    "child_trainers",
    "settings",
    "coordinator.py",
    "proposer.py",
    "preparation.py",
)


@functools.cache
def code_identity() -> dict[str, str]:
    """The version of automl. A development version adds `code`, 12 hex digits of a sha256 over its sources."""
    if ".dev" not in automl.__version__:
        return {"version": automl.__version__}
    root = Path(automl.__file__).parent
    hashed = hashlib.sha256()
    for part in PARTS:
        path = root / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            hashed.update(f"{source.relative_to(root).as_posix()}\n{_meaning(source.read_text('utf-8'))}\n".encode())
    return {"version": automl.__version__, "code": hashed.hexdigest()[:12]}


def _meaning(source: str) -> str:
    """The syntax tree as a text, without comments, docstrings and layout: they do not change a search."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)
