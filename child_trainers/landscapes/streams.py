"""Random numbers that are the same under every version of NumPy.

NumPy guarantees the raw stream of a bit generator, but not the numbers that `Generator` makes from it.
"""

from __future__ import annotations

import statistics

import numpy as np

_inverse_normal = statistics.NormalDist().inv_cdf


class Stream:
    """The random numbers of a key: one or more whole numbers of 0 or more."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(list(key))

    def uniform(self, *shape: int) -> np.ndarray:
        """Numbers in (0, 1), float64 of this shape."""
        raw = np.asarray(self._bits.random_raw(int(np.prod(shape, dtype=int))), np.uint64)
        return ((raw >> np.uint64(11)).astype(np.float64) + 0.5).reshape(shape) * 2.0**-53

    def normal(self, *shape: int) -> np.ndarray:
        """Numbers of the standard normal distribution, float64 of this shape."""
        uniform = self.uniform(*shape)
        return np.array([_inverse_normal(float(share)) for share in uniform.ravel()]).reshape(shape)

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int(self.uniform(1)[0] * limit)
