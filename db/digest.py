"""The hashes that are equal for equal searches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from automl.db.records import Child, Step

if TYPE_CHECKING:  # NumPy takes a sixth of a second to import, and commands that only show a store do not need it
    import numpy as np

DIGESTED = ("number", "tokens", "canonical_hash", "seed", "state", "reward", "metrics")  # of each final child
FLAGS = ("stopped_at", "ending", "screened")  # hashed as if they were metrics


def state_hash(arrays: Mapping[str, np.ndarray], values: Any) -> str:
    """SHA-256 of a controller's state: name, dtype, shape and bytes of each array by name, then the values as JSON."""
    import numpy as np

    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hasher.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hasher.update(array.tobytes())
    hasher.update(_canonical(values))
    return hasher.hexdigest()


def digest(children: Iterable[Child | Row[Any]], steps: Iterable[Step | Row[int, str]]) -> str:
    """SHA-256 of the final children in number order and the state hashes of all controller steps.

    Times, attempts and workers are not hashed: equal rewards give equal digests, whatever died and however many workers
    there were. The metric `seconds` is left out for the same reason, even if a user's task reports it. How a child's
    training ended is hashed with its metrics, where 0.1.0 stored it, so that digests of old searches do not change.
    """
    hasher = hashlib.sha256()
    for child in children:
        *entry, metrics = (getattr(child, name) for name in DIGESTED)
        timeless = {name: value for name, value in (metrics or {}).items() if name != "seconds"}
        hasher.update(_canonical([*entry, timeless | _flags(child)]))
    for step in steps:
        hasher.update(_canonical([step.number, step.state_hash]))
    return hasher.hexdigest()


def _flags(child: Child | Row[Any]) -> dict[str, Any]:
    """How the training ended, under the names that these metrics had in 0.1.0."""
    flags = {"stopped": child.stopped_at, "ended": child.ending, "screened": child.screened or None}
    return {name: value for name, value in flags.items() if value is not None}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
