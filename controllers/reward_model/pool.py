"""Chooses among the candidates of the reward model while other children are in flight."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import cholesky

from automl.controllers.base import PendingChild
from automl.controllers.reward_model.gaussian_process import JITTER, GaussianProcess, solved
from automl.controllers.reward_model.model import RewardModel, Tokens
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

COMPARED = 256  # candidates with the highest upper confidence bounds that are compared with children in flight
MAX_IN_FLIGHT = 256  # children in flight that are no candidates of the pool and that count, the latest
OUTCOMES = 512  # possible outcomes that are drawn

MakeGenerator = Callable[[str], np.random.Generator]


class Pool:
    """The candidates for the next children, while more and more of them are in flight.

    With no child in flight, the best candidate is the one with the highest upper confidence bound u(x) = m(x) + w s(x).
    With some in flight, it is the one that adds most to the highest bound of all:

        E max(t, U(x), U(x_1), ..., U(x_q)) - E max(t, U(x_1), ..., U(x_q)),    U(x) = m(x) + w sqrt(pi/2) |f(x) - m(x)|

    Here x_1 to x_q are in flight, t is the highest score so far, and f is a function drawn from the posterior; so the
    mean of U(x) is u(x). A candidate that is good only if a similar one in flight is good too adds little. So the
    children of a batch differ, and they differ the more, the more of them there are.

    Source: the q-UCB of Wilson et al. 2017, "The reparameterization trick for acquisition functions"
    (arXiv:1712.00424), maximized greedily (Wilson et al. 2018, "Maximizing acquisition functions for Bayesian
    optimization", section 3.2). That t takes part is ours.

    Args:
        model: which may not receive more children as long as the pool is used.
        walks: the candidates, in any order.
        generator: makes a generator of random numbers from a name, always the same.
    """

    def __init__(self, model: RewardModel, space: Space, walks: Sequence[Walk], generator: MakeGenerator) -> None:
        unique = {walk.tokens: walk for walk in walks}
        # If every candidate is trained already, the proposer refuses the choice and takes a neighbour.
        new = [walk for tokens, walk in unique.items() if model.is_new(tokens)] or list(walks[:1])
        self._model = model
        self._space = space
        self._generator = generator
        self._hashes: dict[Tokens, str] = {}  # canonical hashes of children in flight
        self._walks = [new[index] for index in np.argsort(-model.score(new), kind="stable").tolist()]
        self._outcomes: Outcomes | None = None  # made with the first child in flight

    def choose(self, attempt: int, pending: Sequence[PendingChild]) -> Walk:
        """The best candidate that equals no child that is trained or in flight; at a later attempt, one further down.

        Args:
            attempt: how many choices were refused.
        """
        in_flight = [child.tokens for child in pending]
        for tokens in in_flight:
            if tokens not in self._hashes:
                self._hashes[tokens] = self._model.hash_of(self._space.decode(tokens))
        waiting = {self._hashes[tokens] for tokens in in_flight}
        ranked = self._ranked(in_flight) if in_flight else self._walks
        free = (walk for walk in ranked if self._model.hash_of(walk) not in waiting and not self._model.repeats(walk))
        return next(itertools.islice(free, attempt, None), ranked[attempt % len(ranked)])

    def _ranked(self, in_flight: Sequence[Tokens]) -> list[Walk]:
        compared = self._walks[:COMPARED]
        if self._outcomes is None:
            self._outcomes = Outcomes(self._model, compared, self._generator)
        others = [tokens for tokens in in_flight if tokens not in self._outcomes.places][-MAX_IN_FLIGHT:]
        gains = self._outcomes.gains(in_flight, [self._space.decode(tokens) for tokens in others])
        order = np.argsort(-gains, kind="stable").tolist()  # equal gains in the order of the bounds
        return [compared[index] for index in order] + self._walks[COMPARED:]


class Outcomes:
    """Draws of the candidates' optimistic scores U, all from the joint posterior.

    Attributes:
        places: of the candidates, by their tokens.
        drawn: float64 (candidates, outcomes).
    """

    def __init__(self, model: RewardModel, candidates: Sequence[Walk], generator: MakeGenerator) -> None:
        self.places = {walk.tokens: place for place, walk in enumerate(candidates)}
        self._model = model
        self._generator = generator
        self._process: GaussianProcess = model.process
        self._prediction = self._process.predict(model.matrix(candidates))
        self._factor = _factor(self._prediction.covariance(self._prediction))
        self._normal = generator("candidates").normal(size=(len(candidates), OUTCOMES))
        self.drawn = self._optimistic(self._prediction.mean, self._factor @ self._normal)
        self._best_score = model.best_score

    def gains(self, in_flight: Sequence[Tokens], others: Sequence[Walk]) -> np.ndarray:
        """float64 (candidates,): how much each adds to the highest optimistic score of the children in flight.

        Args:
            others: those of the children in flight that are no candidates.
        """
        places = [self.places[tokens] for tokens in in_flight if tokens in self.places]
        highest = self.drawn[places].max(axis=0, initial=self._best_score)
        if others:
            highest = np.maximum(highest, self._of_others(others).max(axis=0))
        return np.asarray(np.maximum(self.drawn - highest, 0.0).mean(axis=1))

    def _of_others(self, others: Sequence[Walk]) -> np.ndarray:
        """float64 (others, outcomes): their optimistic scores, given those of the candidates."""
        prediction = self._process.predict(self._model.matrix(others))
        shared = solved(self._factor, self._prediction.covariance(prediction))
        own = _factor(prediction.covariance(prediction) - shared.T @ shared)
        normal = self._generator("others").normal(size=(len(others), OUTCOMES))
        return self._optimistic(prediction.mean, shared.T @ self._normal + own @ normal)

    def _optimistic(self, mean: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        return mean[:, np.newaxis] + self._model.exploration * math.sqrt(math.pi / 2) * np.abs(deviations)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """The Cholesky factor of a posterior covariance, whose rank may be lower than its size."""
    jitter = JITTER * max(1.0, float(np.diag(covariance).max(initial=0.0)))
    while True:
        try:
            return np.asarray(cholesky(covariance + jitter * np.eye(len(covariance)), lower=True))
        except np.linalg.LinAlgError:
            jitter *= 10.0
