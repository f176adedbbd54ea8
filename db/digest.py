"""The hashes that say two searches are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from db.records import Child, Step


def state_hash(arrays: Mapping[str, np.ndarray], values: Any) -> str:
    """Sha256 of a controller's state: sorted name, dtype, shape and bytes of each array, and canonical JSON."""
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hasher.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hasher.update(array.tobytes())
    hasher.update(_canonical(values))
    return hasher.hexdigest()


def digest(children: Iterable[Child], steps: Iterable[Step]) -> str:
    """Sha256 over final children in number order and over every controller step's state hash.

    It holds no times, attempts or workers: equal rewards give equal digests, whatever died and however many workers
    there were. The metric `seconds` is left out for the same reason.
    """
    hasher = hashlib.sha256()
    for child in children:
        metrics = {name: value for name, value in (child.metrics or {}).items() if name != "seconds"}
        entry = [child.number, child.tokens, child.canonical_hash, child.seed, child.state, child.reward, metrics]
        hasher.update(_canonical(entry))
    for step in steps:
        hasher.update(_canonical([step.number, step.state_hash]))
    return hasher.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
