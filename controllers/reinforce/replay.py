"""Replay: an update also learns from past children, whose importance ratios are clipped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from automl.controllers.base import Result
from automl.controllers.keyed import pool_stream

MAX_REMEMBERED = 1000  # children


class Memory:
    """The latest children that have rewards and log-probabilities."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._children: deque[Result] = deque(maxlen=MAX_REMEMBERED)

    def add(self, results: Iterable[Result]) -> None:
        self._children.extend(one for one in results if one.reward is not None and one.log_probs)

    @property
    def rewards(self) -> list[float]:
        return [float(child.reward or 0.0) for child in self._children]

    def sample(self, count: int, number: int) -> Sequence[int]:
        """The places of distinct children, drawn uniformly, in ascending order; all if there are no more than `count`.

        Args:
            number: of the first child of the batch beside which these are replayed; it keys the draw.
        """
        if len(self._children) <= count:
            return range(len(self._children))
        generator = pool_stream(self._seed, number, "replay")
        places: list[int] = generator.choice(len(self._children), count, replace=False).tolist()
        return sorted(places)

    def __getitem__(self, place: int) -> Result:
        return self._children[place]
