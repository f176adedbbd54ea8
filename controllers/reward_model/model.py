"""What the children that have rewards say of others: their features, and a Gaussian process fitted to their rewards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from automl.controllers.base import Result, ResultState
from automl.controllers.ranks import rank_shares
from automl.controllers.reward_model.donors import Donors
from automl.controllers.reward_model.features import Matrix, Row
from automl.controllers.reward_model.fitting import fit
from automl.controllers.reward_model.gaussian_process import GaussianProcess, Hyperparameters, Layout, Prediction
from automl.controllers.single_thread import single_threaded
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_hash
from automl.search_spaces.walk import Walk

MAX_KNOWN = 400  # children with rewards that the model uses: its cost grows with their cube
MIN_FITTED = 4  # children from which on hyperparameters are fitted
REFIT_GROWTH = 1.25  # they are fitted again when there are so many times as many children

Tokens = tuple[int, ...]


class RewardModel:
    """Remembers the children that have rewards, and predicts the scores of others.

    What it says is a function of these children, in the order in which it received them, and of the donors.

    Args:
        donors: earlier searches, of which there may be none.
        exploration: the weight of a child's standard deviation beside its expected score.
    """

    def __init__(self, space: Space, donors: Donors, exploration: float) -> None:
        self.exploration = exploration
        self._space = space
        self._donors = donors
        self._features = donors.new_features()
        self._scored: list[_Scored] = []
        self._tokens: set[Tokens] = set()
        self._hashes: set[str] = set()  # canonical hashes of the same children
        self._fit_size = (0, self._features.size)  # the children of the latest fit, and the features that they had
        self._hyperparameters: Hyperparameters | None = None  # None until they are needed
        # Of the present children, made when they are needed
        self._process: GaussianProcess | None = None
        self._rows: dict[Tokens, Row] = {}  # of candidates
        self._hash_of: dict[Tokens, str] = {}

    @property
    def num_scored(self) -> int:
        """How many children have rewards."""
        return len(self._scored)

    @property
    def best_score(self) -> float:
        """The highest score of a child; minus infinity while none has one."""
        return float(self._scores(self.num_scored).max(initial=-np.inf))

    def tell(self, results: Iterable[Result]) -> None:
        """Adds the children that have rewards."""
        for result in results:
            if result.reward is not None:
                tokens = tuple(result.tokens)
                walk = self._space.decode(tokens)
                self._features.add(walk)
                trained = result.state == ResultState.TRAINED
                self._scored.append(_Scored(tokens, self._features.row(walk), float(result.reward), trained))
                self._tokens.add(tokens)
                self._hashes.add(canonical_hash(walk.spec, tokens))
        # The sizes at which hyperparameters are fitted depend on the children alone, so a replay fits only once.
        if len(self._scored) >= max(MIN_FITTED, REFIT_GROWTH * self._fit_size[0]):
            self._fit_size, self._hyperparameters = (len(self._scored), self._features.size), None
        self._process, self._rows, self._hash_of = None, {}, {}

    def best_trained(self, count: int) -> list[Tokens]:
        """The trained children with the highest rewards; of equal ones, the older first. Failed children are left
        out."""
        ranked = sorted((child for child in self._scored if child.trained), key=lambda child: -child.reward)
        return [child.tokens for child in ranked[:count]]

    @single_threaded
    def score(self, walks: Sequence[Walk]) -> np.ndarray:
        """float64 (children,): the upper confidence bounds of children's scores."""
        return self.upper_bounds(self.process.predict(self.matrix(walks)))

    def upper_bounds(self, prediction: Prediction) -> np.ndarray:
        """float64 (candidates,): expected scores, plus the weighted standard deviations.

        Source: Srinivas et al. 2010, "Gaussian process optimization in the bandit setting", section 3.
        """
        return np.asarray(prediction.mean + self.exploration * np.sqrt(prediction.variance))

    @single_threaded
    def donor_weights(self) -> list[float]:
        """How far each donor is trusted."""
        return self.process.basis_weights[: len(self._donors)].tolist() if len(self._donors) else []

    def is_new(self, tokens: Tokens) -> bool:
        """Whether no child with a reward has these tokens."""
        return tokens not in self._tokens

    def repeats(self, walk: Walk) -> bool:
        """Whether an equal child has a reward, such as another numbering of the same network."""
        return self.hash_of(walk) in self._hashes

    def hash_of(self, walk: Walk) -> str:
        """The canonical hash of a candidate."""
        found = self._hash_of.get(walk.tokens)
        if found is None:
            found = self._hash_of[walk.tokens] = canonical_hash(walk.spec, walk.tokens)
        return found

    @property
    def process(self) -> GaussianProcess:
        """The Gaussian process of the present children."""
        if self._process is None:
            known, scores = self._known(len(self._scored), self._features.size)
            layout = Layout.of(self._features, known, self._donors.basis)
            hyperparameters = self._fitted().extended(layout.num_decisions)
            self._process = GaussianProcess(layout, hyperparameters, known, scores)
        return self._process

    def matrix(self, walks: Sequence[Walk]) -> Matrix:
        """Candidates as a matrix for the process."""
        return self._donors.with_functions(self._features.matrix([self._row(walk) for walk in walks]))

    def _row(self, walk: Walk) -> Row:
        row = self._rows.get(walk.tokens)
        if row is None:
            row = self._rows[walk.tokens] = self._features.row(walk)
        return row

    def _fitted(self) -> Hyperparameters:
        """The hyperparameters of the latest fit."""
        if self._hyperparameters is None:
            count, size = self._fit_size
            matrix, scores = self._known(count, size)
            layout = Layout.of(self._features, matrix, self._donors.basis)
            if count:
                self._hyperparameters = fit(layout, matrix, scores)
            else:
                self._hyperparameters = Hyperparameters.prior(layout.num_decisions)
        return self._hyperparameters

    def _known(self, count: int, size: tuple[int, int]) -> tuple[Matrix, np.ndarray]:
        """Those of the first children that the model uses, in columns of this size, and their scores."""
        used = _used(np.array([child.reward for child in self._scored[:count]]))
        matrix = self._features.matrix([self._scored[index].row for index in used], size)
        return self._donors.with_functions(matrix), self._scores(count)[used]

    def _scores(self, count: int) -> np.ndarray:
        """float64 (count,), of the first children."""
        return normal_scores(np.array([child.reward for child in self._scored[:count]]))


class _Scored(NamedTuple):
    """A child that has a reward."""

    tokens: Tokens
    row: Row
    reward: float
    trained: bool


def normal_scores(rewards: np.ndarray) -> np.ndarray:
    """The quantiles of the normal distribution at the rewards' ranks; equal rewards have one.

        s_i = Phi^-1((rank_i - 1/2) / n)

    The model then depends neither on the scale of the rewards nor on a few extreme ones.
    """
    return np.asarray(ndtri(rank_shares(rewards)))


def _used(rewards: np.ndarray) -> np.ndarray:
    """The indices of the children that the model uses, ascending: all, or the best half and the latest of the rest."""
    if len(rewards) <= MAX_KNOWN:
        return np.arange(len(rewards))
    best = np.argsort(-rewards, kind="stable")[: MAX_KNOWN // 2]
    others = np.setdiff1d(np.arange(len(rewards)), best)
    return np.sort(np.concatenate([best, others[len(best) - MAX_KNOWN :]]))
