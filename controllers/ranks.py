"""Ranks of rewards, which compare children of tasks whose rewards have different scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rank_shares(rewards: Sequence[float] | np.ndarray) -> np.ndarray:
    """float64 (n,), above 0 and below 1: the share of lower rewards, counting each reward itself and equal ones half.

    (rank_i - 1/2) / n, with ranks from 1; equal rewards have one rank, their mean.
    """
    _, places, counts = np.unique(rewards, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0  # of each distinct reward
    return np.asarray((ranks[places] - 0.5) / max(1, len(rewards)))
