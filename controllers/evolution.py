"""Regularized evolution: a child is a mutation of the best of a few recent children, and the oldest child leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from automl.controllers.base import Controller, Draw, PendingChild, Proposal, Result, ResultState
from automl.controllers.keyed import stream
from automl.controllers.random_search import uniform_answer
from automl.controllers.variation import Answers, flipped, other_option, uniform_walk
from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk
from automl.search_spaces.whole_numbers import check_whole_number

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"population": 100, "sample": 25},  # Real et al. 2019, section 3: the best pair of their comparison
}


class Evolution(Controller):
    """Aging evolution.

    The population is the latest `population` trained children. While it is not full, children are drawn uniformly.
    After that, `sample` members are drawn with replacement, and the one with the highest reward is the parent. A
    mutation changes one of its decisions; see `mutated`. Failed children are never parents.

    It keeps no state: a resume replays the results.

    Args:
        population: the number of children in the population (P).
        sample: the number of members that are drawn, of which the best becomes the parent (S).

    Raises:
        ValueError: an option is not a whole number of 1 or more, or `sample` is larger than `population`.

    Source: Real et al. 2019 (arXiv:1802.01548), algorithm 1. There, one child is trained at a time. Here several may
    be in flight; a draw sees the children whose results were learned before it.
    """

    def __init__(self, space: Space, *, seed: int, population: int = 20, sample: int = 10) -> None:
        super().__init__(space, seed=seed)
        for name, value in (("population", population), ("sample", sample)):
            check_whole_number(f"controller.{name}", value, least=1)
        if sample > population:
            raise ValueError(
                f"controller.sample is {sample} and controller.population is {population}; sample must not be larger."
            )
        self._sample = sample
        self._population: deque[Result] = deque(maxlen=population)

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        return [Proposal(self._draw(draw).tokens) for draw in draws]

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        self._population += [result for result in results if result.state == ResultState.TRAINED]
        return {"population": len(self._population)}

    def _draw(self, draw: Draw) -> Walk:
        uniforms = stream(self.seed, draw.number, draw.attempt)
        if len(self._population) < (self._population.maxlen or 0):
            return uniform_walk(self.space, draw.number, uniforms, draw.given)
        parent = self._tournament(uniforms)
        return mutated(self.space, draw, parent.tokens, uniforms)

    def _tournament(self, uniforms: np.random.Generator) -> Result:
        """The best of `sample` random members; of equal ones, the one that was drawn first."""
        places = uniforms.integers(len(self._population), size=self._sample).tolist()
        return max((self._population[place] for place in places), key=_reward)


def mutated(space: Space, draw: Draw, parent: Sequence[int], uniforms: np.random.Generator) -> Walk:
    """A finished walk that differs from the parent in one decision, and in the decisions that depend on it.

    The decision is drawn uniformly among those that are neither forced nor given. A `Choice` takes another option; an
    ordered choice takes the next lower or higher one half of the time. A `Links` flips one bit. Decisions that the
    parent lacks, or has with other options, are drawn uniformly.

    Args:
        parent: the parent's tokens. An answer that the narrowing or the schedule no longer admits is drawn uniformly.
    """
    origin = space.decode(list(parent))
    known = {decision.name: decision for decision in origin.decisions}
    child = completed(space.walk(draw.number), draw, origin.answers, known, uniforms)
    free = [decision for decision in child.decisions if draw.answer(decision) is None and _can_change(decision)]
    if not free:
        return child
    decision = free[int(uniforms.integers(len(free)))]
    answers = {**child.answers, decision.name: _changed(decision, child.answers[decision.name], uniforms)}
    known = {other.name: other for other in child.decisions}
    return completed(space.walk(draw.number), draw, answers, known, uniforms)


def completed(
    walk: Walk, draw: Draw, answers: Answers, known: Mapping[str, Decision], uniforms: np.random.Generator
) -> Walk:
    """Finishes a walk. A decision takes the draw's given answer, else one of `answers` if it fits, else a uniform one.

    Args:
        known: the decisions that `answers` answer, by name. An answer fits only a decision with the same options.
    """
    while (decision := walk.decision) is not None:
        answer = draw.answer(decision)
        if answer is None and _same(decision, known.get(decision.name)):
            old = answers[decision.name]
            answer = old if decision.admits(old) else None
        walk.answer(uniform_answer(decision, uniforms) if answer is None else answer)
    return walk


def _same(decision: Decision, other: Decision | None) -> bool:
    """Whether tokens have the same meaning in both. Narrowing does not change it."""
    if isinstance(decision, Choice):
        return isinstance(other, Choice) and (decision.kind, decision.options) == (other.kind, other.options)
    return other is not None and not isinstance(other, Choice) and decision.count == other.count


def _can_change(decision: Decision) -> bool:
    return any(token is None for token in decision.forced)


def _changed(decision: Decision, old: tuple[int, ...], uniforms: np.random.Generator) -> tuple[int, ...]:
    """Another answer that the decision admits."""
    if isinstance(decision, Choice):
        return (other_option(decision, old[0], uniforms),)
    free = [place for place, token in enumerate(decision.forced) if token is None]
    return flipped(old, free[int(uniforms.integers(len(free)))])


def _reward(result: Result) -> float:
    assert result.reward is not None  # a trained child has a reward
    return result.reward
