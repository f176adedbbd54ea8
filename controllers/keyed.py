"""The one place that derives randomness: from (search seed, child number, attempt), never from a running state."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, number: int, attempt: int) -> np.random.Generator:
    """Uniform numbers for the draws of one child, in the order of its decisions."""
    return np.random.Generator(np.random.Philox(key=_key("draw", seed, number, attempt)))


def initial(seed: int, name: str) -> np.random.Generator:
    """Numbers for the first values of a named variable, whatever other variables there are."""
    return np.random.Generator(np.random.Philox(key=_key("initial", seed, name)))


def child_seed(seed: int, number: int) -> int:
    """The seed of a child's training, 0 to 2**31 - 1."""
    return _key("child", seed, number) % 2**31


def _key(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "little")
