"""Shows stored specs, which are JSON, in the notation of the space that made them; no code of a user's runs for it."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable

from automl.search_spaces import READERS
from automl.search_spaces.spec import Json, Spec, json_line

logger = logging.getLogger(__name__)


def spec_line(stored: Json, space: str) -> str:
    """A stored spec in one line. A spec of the user's own space is shown as JSON, and so is one that the space cannot
    read.

    Args:
        space: its name in the search.
    """
    shown = _as_made(stored, space, lambda spec: spec.line())
    return json_line(stored) if shown is None else shown


def spec_drawing(stored: Json, space: str) -> list[str]:
    """A stored spec as lines of a drawing; none where the space has no drawing of it."""
    return (_as_made(stored, space, lambda spec: spec.drawing()) or "").splitlines()


def read_spec(stored: Json, space: str) -> Spec | None:
    """The spec that a built-in space made, from its JSON; None for another space.

    Raises:
        Exception: any, where the space cannot read it, for example one of a later version.
    """
    if space not in READERS:
        return None
    made: Spec = pkgutil.resolve_name(READERS[space])(stored)
    return made


def _as_made(stored: Json, space: str, show: Callable[[Spec], str]) -> str | None:
    """A view of a spec by its space; None where the space is not built-in or cannot read the spec: one child must not
    keep a search from being shown."""
    try:
        spec = read_spec(stored, space)
        return None if spec is None else show(spec)
    except Exception as error:
        # The text of an exception may quote the spec, which must not steer the terminal.
        logger.warning("A spec of the space %s cannot be read: %s: %r", space, type(error).__name__, str(error))
        return None
