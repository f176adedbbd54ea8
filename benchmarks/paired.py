"""Intervals for paired differences."""

import numpy as np


def interval(differences: np.ndarray, level: float = 0.95, resamples: int = 20_000) -> tuple[float, float]:
    """Percentile bootstrap interval for the mean of paired differences: the central `level` of the resampled means.

    Source: Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    generator = np.random.default_rng(0)
    picked = generator.integers(len(differences), size=(resamples, len(differences)))
    means = differences[picked].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
