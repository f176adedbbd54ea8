"""Mutations of good children and a local search, which make candidates for the reward model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from automl.controllers.variation import flipped, other_option, uniform_walk
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

CLIMBERS = 5  # candidates that a round of the local search starts from
STEPS = 10  # mutations of each of them


def mutation(space: Space, number: int, parent: Walk, changes: int, generator: np.random.Generator) -> Walk:
    """A copy of a child in which some of its free tokens are changed. Decisions that the parent lacks are drawn
    uniformly.

    Args:
        parent: a child that narrowing and the schedule admit under this number.
        changes: how many tokens are changed, or all free ones where there are fewer.
    """
    free = [
        (decision, bit) for decision in parent.decisions for bit, forced in enumerate(decision.forced) if forced is None
    ]
    answers = dict(parent.answers)
    for index in generator.permutation(len(free))[:changes].tolist():
        decision, bit = free[index]
        old = answers[decision.name]
        new = (other_option(decision, old[0], generator),) if isinstance(decision, Choice) else flipped(old, bit)
        answers[decision.name] = new
    return uniform_walk(space, number, generator, answers)


class Judge(Protocol):
    """What a local search needs to know of children."""

    def score(self, walks: Sequence[Walk]) -> np.ndarray:
        """float64 (children,): how promising they are."""
        ...

    def is_new(self, tokens: tuple[int, ...]) -> bool:
        """Whether no child with a reward has these tokens."""
        ...

    def repeats(self, walk: Walk) -> bool:
        """Whether an equal child has a reward, such as another numbering of the same network."""
        ...


def climbed(
    space: Space, number: int, walks: Sequence[Walk], judge: Judge, rounds: int, generator: np.random.Generator
) -> list[Walk]:
    """These candidates without duplicates, and those of a local search for the highest score.

    In each round, the new children with the highest scores so far are mutated by one token.
    """
    found: dict[tuple[int, ...], Walk] = {}
    scores: dict[tuple[int, ...], float] = {}  # of those with new tokens
    for round_number in range(rounds + 1):
        added = {walk.tokens: walk for walk in walks if walk.tokens not in found}
        found |= added
        new = [walk for tokens, walk in added.items() if judge.is_new(tokens)]
        if round_number == rounds or not new:
            break
        scores |= zip([walk.tokens for walk in new], judge.score(new).tolist(), strict=True)
        ranked = (found[tokens] for tokens in sorted(scores, key=scores.__getitem__, reverse=True))
        best = itertools.islice((walk for walk in ranked if not judge.repeats(walk)), CLIMBERS)
        walks = [mutation(space, number, walk, 1, generator) for walk in best for _ in range(STEPS)]
    return list(found.values())
