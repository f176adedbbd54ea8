"""The weight of the policy's entropy in the loss, which may decay over the children of a search."""

from __future__ import annotations


def entropy_weight(weight: float, half_life: float, number: int) -> float:
    """The weight for a batch whose first child has this number.

        w = w_0 * 2^(-number / half_life)

    Args:
        weight: w_0, of the first batch.
        half_life: children after which the weight has halved; 0 keeps it constant.
    """
    return weight if half_life == 0 else weight * 2.0 ** (-number / half_life)
