"""The only source of random numbers: keyed by (search seed, child number, attempt), never a running state."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, number: int, attempt: int) -> np.random.Generator:
    """A generator of uniform numbers for one child, which takes them in the order of its decisions."""
    return np.random.Generator(np.random.Philox(key=_key("draw", seed, number, attempt)))


def pool_stream(seed: int, num_children: int, part: str = "pool") -> np.random.Generator:
    """A generator for the candidates of a controller that has received the rewards of so many children.

    Args:
        part: names one of several independent generators.
    """
    return np.random.Generator(np.random.Philox(key=_key(part, seed, num_children)))


def initial(seed: int, name: str) -> np.random.Generator:
    """A generator for the initial values of a named variable; they do not depend on other variables."""
    return np.random.Generator(np.random.Philox(key=_key("initial", seed, name)))


def child_seed(seed: int, number: int) -> int:
    """The seed of a child's training, 0 to 2**31 - 1."""
    return _key("child", seed, number) % 2**31


def _key(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], "little")
