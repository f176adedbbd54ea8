"""Recognizes lists of options that a space may have made from a set: their order depends on the process's hash seed.

Imports the standard library alone: short processes with other hash seeds run it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

MOST_PERMUTED = 5  # options of a list whose permutations are all tried: 120 sets


def may_be_from_set(options: Sequence[Any]) -> bool:
    """Whether the options are in the order of a set of them, and some process may have another order."""
    return len(options) > 1 and any('"' in json.dumps(option) for option in options) and is_order_of_set(options)


def is_order_of_set(options: Sequence[Any]) -> bool:
    """Whether a set of these options, made in any order, lists them in this order in this process.

    Where two hashes collide, the order in which a set is made decides about its own. Of more than five options, whose
    permutations are too many, only the given order and its reverse are tried.
    """
    with contextlib.suppress(TypeError):  # a dict is in no set
        frozen = [_frozen(option) for option in options]
        orders = itertools.permutations(frozen) if len(frozen) <= MOST_PERMUTED else (frozen, frozen[::-1])
        return any(list(set(order)) == frozen for order in orders)
    return False


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
