"""Random children and random changes to a child, for controllers that search without a policy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from automl.controllers.random_search import uniform_answer
from automl.search_spaces.decisions import Choice
from automl.search_spaces.numeric import Numeric
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

Answers = Mapping[str, tuple[int, ...]]


def uniform_walk(space: Space, number: int, uniforms: np.random.Generator, given: Answers | None = None) -> Walk:
    """A finished child of this number, drawn uniformly, decision by decision.

    Args:
        given: answers by decision name that are taken where the decision, as it is narrowed, admits them.
    """
    walk = space.walk(number)
    while (decision := walk.decision) is not None:
        answer = None if given is None else given.get(decision.name)
        if answer is None or not decision.admits(answer):
            answer = uniform_answer(decision, uniforms)
        walk.answer(answer)
    return walk


def other_option(decision: Choice, old: int, uniforms: np.random.Generator) -> int:
    """Another allowed option of a decision that has one; of a number, half of the time the next lower or higher one."""
    tokens = [token for token in range(len(decision.options)) if decision.allows(token)]
    others = [token for token in tokens if token != old]
    if isinstance(decision, Numeric) and uniforms.random() < 0.5:
        tokens.sort(key=decision.unit_value)
        place = tokens.index(old)
        others = tokens[max(0, place - 1) : place] + tokens[place + 1 : place + 2]
    return others[int(uniforms.integers(len(others)))]


def flipped(bits: tuple[int, ...], place: int) -> tuple[int, ...]:
    """The answer to a `Links` with one bit turned."""
    return (*bits[:place], 1 - bits[place], *bits[place + 1 :])
