"""Shows stored specs, which are JSON, in the notation of their space. It runs no user code."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable

from automl.search_spaces import READERS
from automl.search_spaces.spec import Json, Spec, json_line

logger = logging.getLogger(__name__)


def spec_line(stored: Json, space: str) -> str:
    """A stored spec in one line: JSON if the space is the user's or cannot read the spec.

    Args:
        space: the space's name in the search.
    """
    shown = _shown(stored, space, lambda spec: spec.line())
    return json_line(stored) if shown is None else shown


def spec_drawing(stored: Json, space: str) -> list[str]:
    """A stored spec as lines of a drawing; none if the space has no drawing of it."""
    return (_shown(stored, space, lambda spec: spec.drawing()) or "").splitlines()


def read_spec(stored: Json, space: str) -> Spec | None:
    """The spec of a built-in space, from its JSON; None for another space.

    Raises:
        Exception: of any type, if the space cannot read it, for example because a later version wrote it.
    """
    if space not in READERS:
        return None
    spec: Spec = pkgutil.resolve_name(READERS[space])(stored)
    return spec


def _shown(stored: Json, space: str, show: Callable[[Spec], str]) -> str | None:
    """A spec as its space shows it; None if the space is not built-in or cannot read the spec. It raises nothing, so
    that one unreadable child does not hide a search."""
    try:
        spec = read_spec(stored, space)
        return None if spec is None else show(spec)
    except Exception as error:
        # repr, because the text of an exception may quote control characters of the spec.
        logger.warning("A spec of the space %s cannot be read: %s: %r", space, type(error).__name__, str(error))
        return None
