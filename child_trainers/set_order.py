"""Recognizes lists of options that a space may have made from a set, whose order depends on the process's hash seed.

It imports only the standard library, because short-lived processes with other hash seeds import it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

MAX_PERMUTED = 5  # options of the longest list whose permutations are all checked: 120 sets


def may_be_from_set(options: Sequence[Any]) -> bool:
    """Whether the options are in the order of their set, and another process may have another order."""
    return len(options) > 1 and any('"' in json.dumps(option) for option in options) and is_order_of_set(options)


def is_order_of_set(options: Sequence[Any]) -> bool:
    """Whether some set of these options has this order in this process.

    If two hashes collide, the order of a set depends on the order of insertion. So all insertion orders of up to five
    options are checked; for more options only the given order and its reverse.
    """
    with contextlib.suppress(TypeError):  # a dict cannot be in a set
        frozen = [_frozen(option) for option in options]
        orders = itertools.permutations(frozen) if len(frozen) <= MAX_PERMUTED else (frozen, frozen[::-1])
        return any(list(set(order)) == frozen for order in orders)
    return False


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
