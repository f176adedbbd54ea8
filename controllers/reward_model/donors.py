"""What the reward model takes over from earlier searches, and how far it trusts them.

Each donor gets a Gaussian process of its own, fitted to its children alone. The score m_t(x) that it expects is known
for every child, so the model of the present search uses it as an explicit basis function:

    score(x) = f(x) + sum_t beta_t m_t(x) + b,    beta_t ~ N(TRUST / donors, DOUBT^2),    b ~ N(0, OFFSET^2)

The weights beta_t say how far a donor can be trusted. They are inferred together with f. A donor whose scores say
nothing about this task gets a weight near 0, one with the opposite order a negative one. The donor's hyperparameters
are its own, so a bad donor changes neither the weights of the decisions nor the noise of f.

Sources: explicit basis functions, Rasmussen & Williams 2006, section 2.7; a stack of processes, each on the residuals
of the one below, Golovin et al. 2017, "Google Vizier", section 3.3. There the weight is fixed at 1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from automl.controllers.base import DONOR_WEIGHTS, Donor
from automl.controllers.reward_model.features import Features, Matrix
from automl.controllers.reward_model.fitting import fit
from automl.controllers.reward_model.gaussian_process import NO_BASIS, Basis, GaussianProcess, Layout
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

MAX_CHILDREN = 200  # of one donor that its process uses: the first ones
TRUST = 0.7  # expected sum of the donors' weights, before any child of the search is trained
DOUBT = 1.0  # standard deviation of each weight
OFFSET = 1.0  # standard deviation of the offset: a donor's mean score is over other children than the search's


class Donors:
    """What the children of earlier searches say of others.

    Args:
        donors: may be none.
    """

    def __init__(self, space: Space, donors: Sequence[Donor] = ()) -> None:
        self._space = space
        children = [donor.children[:MAX_CHILDREN] for donor in donors]
        self._walks = [[space.decode(child.tokens) for child in of_donor] for of_donor in children]
        self._scores = [ndtri([child.rank for child in of_donor]) for of_donor in children]

    def __len__(self) -> int:
        return len(self._walks)

    def best(self, count: int) -> list[Walk]:
        """The best children: that of each donor, then the second best of each, and so on."""
        in_turn = itertools.chain.from_iterable(itertools.zip_longest(*self._walks))
        unique = {walk.tokens: walk for walk in in_turn if walk is not None}
        return list(unique.values())[:count]

    def new_features(self) -> Features:
        """Features with columns for the decisions of the space's survey, then for those of the donors' children."""
        features = Features()
        for walk in itertools.chain(self._space.survey(), *self._walks):
            features.add(walk)
        return features

    @property
    def basis(self) -> Basis:
        """The prior of the functions' weights."""
        number = len(self)
        if not number:
            return NO_BASIS
        return Basis(np.array([TRUST / number] * number + [0.0]), np.array([DOUBT] * number + [OFFSET]))

    def with_functions(self, matrix: Matrix) -> Matrix:
        """A matrix of children, in columns that begin as those of `new_features`, with the values of the functions."""
        if not len(self):
            return matrix
        expected = [process.expected(matrix) for process in self._processes]
        return matrix._replace(basis=np.column_stack([*expected, np.ones(len(matrix.columns))]))

    @functools.cached_property
    def _processes(self) -> list[_Process]:
        return [
            _Process(self.new_features(), walks, scores)
            for walks, scores in zip(self._walks, self._scores, strict=True)
        ]


def donor_stats(weights: Sequence[float]) -> dict[str, Any]:
    """The statistics of a controller's step about its donors; empty if it has none."""
    return {DONOR_WEIGHTS: [round(weight, 4) for weight in weights]} if weights else {}


class _Process:
    """The Gaussian process of one donor."""

    def __init__(self, features: Features, walks: Sequence[Walk], scores: np.ndarray) -> None:
        self._size = features.size
        matrix = features.matrix([features.row(walk) for walk in walks])
        layout = Layout.of(features, matrix)
        self._process = GaussianProcess(layout, fit(layout, matrix, scores), matrix, scores)

    def expected(self, matrix: Matrix) -> np.ndarray:
        """float64 (children,): the scores that this donor expects."""
        num_columns, num_counts = self._size
        none = np.zeros((len(matrix.columns), 0))
        return self._process.predict(Matrix(matrix.columns[:, :num_columns], matrix.counts[:, :num_counts], none)).mean
