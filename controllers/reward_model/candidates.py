"""Mutations of good children, as candidates for the reward model."""

from __future__ import annotations

import numpy as np

from automl.controllers.variation import flipped, other_option, uniform_walk
from automl.search_spaces.decisions import Choice
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk


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
