"""Candidates for the reward model: uniform draws, and mutations of good children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from automl.controllers.random_search import uniform_answer
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

Answers = Mapping[str, tuple[int, ...]]


def uniform_walk(space: Space, number: int, generator: np.random.Generator, given: Answers | None = None) -> Walk:
    """A finished child of this number, drawn uniformly, decision by decision.

    Args:
        given: answers by decision name that are taken where the decision, as it is narrowed, admits them.
    """
    walk = space.walk(number)
    while (decision := walk.decision) is not None:
        answer = None if given is None else given.get(decision.name)
        if answer is None or not decision.admits(answer):
            answer = uniform_answer(decision, generator)
        walk.answer(answer)
    return walk


def mutation(space: Space, number: int, parent: Walk, changes: int, generator: np.random.Generator) -> Walk:
    """A copy of a child in which some of its free tokens are changed. Decisions that the parent lacks are drawn
    uniformly.

    Args:
        changes: how many tokens are changed, or all free ones where there are fewer.
    """
    free = [
        (decision, bit) for decision in parent.decisions for bit, forced in enumerate(decision.forced) if forced is None
    ]
    answers = dict(parent.answers)
    for index in generator.permutation(len(free))[:changes].tolist():
        decision, bit = free[index]
        answers[decision.name] = _changed(decision, bit, answers[decision.name], generator)
    return uniform_walk(space, number, generator, answers)


def _changed(decision: Decision, bit: int, answer: tuple[int, ...], generator: np.random.Generator) -> tuple[int, ...]:
    if not isinstance(decision, Choice):
        return (*answer[:bit], 1 - answer[bit], *answer[bit + 1 :])
    others = [token for token in range(len(decision.options)) if token != answer[0] and decision.allows(token)]
    if decision.ordered and generator.random() < 0.5:
        others = _nearest(decision, answer[0], others)
    return (others[int(generator.integers(len(others)))],) if others else answer


def _nearest(decision: Choice, token: int, others: Sequence[int]) -> list[int]:
    """The options next to a number: one below and one above it, where there are any."""
    value = decision.options[token]
    below = [other for other in others if decision.options[other] < value]
    above = [other for other in others if decision.options[other] > value]
    chosen = [max(below, key=decision.options.__getitem__)] if below else []
    return [*chosen, *([min(above, key=decision.options.__getitem__)] if above else [])]
