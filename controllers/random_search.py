"""Random search, the baseline: all allowed options are equally likely, and each link has probability 1/2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from automl.controllers.base import ControllerState, Draw, PendingChild, PolicyController, Proposal, Result
from automl.controllers.keyed import stream
from automl.search_spaces.decisions import Choice, Decision

PRESETS: dict[str, dict[str, Any]] = {"default": {}}


class RandomSearch(PolicyController):
    """Draws uniformly and learns nothing; its state is empty."""

    def propose(self, draws: Sequence[Draw], pending: Sequence[PendingChild]) -> list[Proposal]:
        return [self._draw(draw) for draw in draws]

    def _draw(self, draw: Draw) -> Proposal:
        uniforms = stream(self.seed, draw.number, draw.attempt)
        walk = self.space.walk(draw.number)
        log_probs: list[float | None] = []
        while (decision := walk.decision) is not None:
            given = draw.answer(decision)
            tokens = uniform_answer(decision, uniforms) if given is None else given
            free_log_prob = -math.log(_num_options(decision))
            log_probs += [None if bit is not None else free_log_prob for bit in decision.forced]
            walk.answer(tokens)
        return Proposal(walk.tokens, tuple(log_probs))

    def learn(self, results: Sequence[Result]) -> dict[str, Any]:
        return {}

    def state(self) -> ControllerState:
        return ControllerState({}, {})

    def restore(self, state: ControllerState) -> None:
        pass


def _num_options(decision: Decision) -> int:
    """The number of values that each free token can take."""
    if isinstance(decision, Choice):
        return sum(decision.allows(token) for token in range(len(decision.options)))
    return 2


def uniform_answer(decision: Decision, uniforms: np.random.Generator) -> tuple[int, ...]:
    """The tokens of an answer, drawn uniformly from all answers that the decision's narrowing admits."""
    if isinstance(decision, Choice):
        possible = [token for token in range(len(decision.options)) if decision.allows(token)]
        return (possible[int(uniforms.random() * len(possible))],)
    return tuple(int(uniforms.random() < 0.5) if bit is None else bit for bit in decision.forced)
