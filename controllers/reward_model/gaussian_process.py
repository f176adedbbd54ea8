"""A Gaussian process over children whose decisions may depend on each other.

Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5. The kernel is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from automl.controllers.reward_model.features import Features, Matrix

JITTER = 1e-6  # added to the diagonal, so that the Cholesky factor exists
MAIN, PAIRS, JOINT, COUNTS, COUNT_SCALE, CONSTANT, NOISE = range(7)  # places in `Hyperparameters.amplitudes`
AMPLITUDE_MEANS = np.log([0.4, 0.3, 0.2, 0.1, 0.5, 0.1, 0.05])  # of the prior; scores have a variance of about 1
JOINT_DISTANCE = 2.0  # the prior's total weight of all decisions in the joint kernel


class Hyperparameters(NamedTuple):
    """Natural logarithms of the parts of the kernel

        k(x, y) = a_main sum_d v_d (1 - D_d(x, y))        each decision by itself
                + a_pairs (sum_d v_d (1 - D_d(x, y)))^2   pairs of decisions
                + a_joint exp(-sum_d w_d D_d(x, y))       all decisions together: interactions
                + a_counts exp(-g |c(x) - c(y)|^2)        how often each option occurs
                + a_constant,

    where D_d is the distance of two children in decision d and c are the standardized counts (`Features`). A weight
    near 0 says that a decision does not matter. Scores are observed with the noise a_noise.

    Attributes:
        main: float64 (decisions,), log v.
        joint: float64 (decisions,), log w.
        amplitudes: float64 (7,): log of a_main, a_pairs, a_joint, a_counts, g, a_constant and a_noise.
    """

    main: np.ndarray
    joint: np.ndarray
    amplitudes: np.ndarray

    @classmethod
    def prior(cls, num_decisions: int) -> Hyperparameters:
        size = max(1, num_decisions)
        return cls(
            np.full(num_decisions, -np.log(size)),
            np.full(num_decisions, np.log(JOINT_DISTANCE / size)),
            AMPLITUDE_MEANS.copy(),
        )

    def extended(self, num_decisions: int) -> Hyperparameters:
        """With the prior's weights for decisions that are new."""
        prior = self.prior(num_decisions)
        known = len(self.main)
        return Hyperparameters(
            np.concatenate([self.main, prior.main[known:]]),
            np.concatenate([self.joint, prior.joint[known:]]),
            self.amplitudes,
        )


class Basis(NamedTuple):
    """Explicit basis functions h of children, whose weights are normal and independent: score(x) = f(x) + h(x)^T beta.

    Attributes:
        means: float64 (functions,), of the weights' prior.
        deviations: float64 (functions,), the standard deviations of this prior.

    Source: Rasmussen & Williams 2006, section 2.7.
    """

    means: np.ndarray
    deviations: np.ndarray


NO_BASIS = Basis(np.zeros(0), np.zeros(0))


class Layout(NamedTuple):
    """What the columns of a matrix mean, and how its counts are standardized."""

    scales: np.ndarray  # float64 (columns,)
    owners: np.ndarray  # int64 (columns,), the decision of each column
    num_decisions: int
    spread: np.ndarray  # float64 (options,), by which counts are divided; infinite where they do not vary
    basis: Basis

    @classmethod
    def of(cls, features: Features, matrix: Matrix, basis: Basis = NO_BASIS) -> Layout:
        """The layout of a matrix, by whose counts all counts are standardized."""
        spread = np.full(matrix.counts.shape[1], np.inf)
        if len(matrix.counts):
            deviations = matrix.counts.std(axis=0)
            varying = np.flatnonzero(deviations)
            spread[varying] = deviations[varying] * np.sqrt(len(varying))
        num_columns = matrix.columns.shape[1]
        owners = np.asarray(features.owners[:num_columns], np.int64)
        scales = np.asarray(features.scales[:num_columns], np.float64)
        return cls(scales, owners, int(owners[-1]) + 1 if num_columns else 0, spread, basis)


class Terms(NamedTuple):
    """The functions of pairs of children that the kernel adds up, float64 (n, m) each."""

    main: np.ndarray
    joint: np.ndarray
    counts: np.ndarray
    basis: np.ndarray  # has no amplitude: it is the covariance of h(x)^T beta and h(y)^T beta


def terms(layout: Layout, hyperparameters: Hyperparameters, some: Matrix, others: Matrix) -> Terms:
    main, joint, amplitudes = map(np.exp, hyperparameters)
    here, there = some.counts / layout.spread, others.counts / layout.spread
    return Terms(
        main.sum() - _distances(layout, main, some.columns, others.columns),
        np.exp(-_distances(layout, joint, some.columns, others.columns)),
        np.exp(-amplitudes[COUNT_SCALE] * squared_distances(here, there)),
        (some.basis * layout.basis.deviations**2) @ others.basis.T,
    )


def kernel(hyperparameters: Hyperparameters, of: Terms) -> np.ndarray:
    amplitudes = np.exp(hyperparameters.amplitudes)
    return np.asarray(
        (amplitudes[MAIN] + amplitudes[PAIRS] * of.main) * of.main
        + amplitudes[JOINT] * of.joint
        + amplitudes[COUNTS] * of.counts
        + amplitudes[CONSTANT]
        + of.basis
    )


def _distances(layout: Layout, weights: np.ndarray, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """sum_d weight_d D_d of all pairs."""
    scales = layout.scales * weights[layout.owners]
    weighted = some * scales
    squares = (weighted * some).sum(axis=1)[:, np.newaxis] + others**2 @ scales
    return np.asarray(squares - 2.0 * (weighted @ others.T))


def squared_distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    squares = (some**2).sum(axis=1)[:, np.newaxis] + (others**2).sum(axis=1) - 2.0 * (some @ others.T)
    return np.maximum(squares, 0.0)


class GaussianProcess:
    """What children with scores say of others.

    Args:
        layout: of all matrices.
        matrix: the children with scores, of which there may be none.
        scores: float64 (n,), with a mean of about 0 and a variance of about 1.
    """

    def __init__(self, layout: Layout, hyperparameters: Hyperparameters, matrix: Matrix, scores: np.ndarray) -> None:
        self.known = matrix
        self.noise = float(np.exp(hyperparameters.amplitudes[NOISE])) + JITTER
        self._layout = layout
        self._hyperparameters = hyperparameters
        covariance = self.covariance(matrix, matrix)
        covariance[np.diag_indices(len(covariance))] += self.noise
        self.factor = cholesky(covariance, lower=True) if len(covariance) else covariance
        # The Cholesky factor's inverse times the scores
        self.solved_scores = solved(self.factor, scores - matrix.basis @ layout.basis.means)

    def predict(self, candidates: Matrix) -> Prediction:
        return Prediction(self, candidates)

    def covariance(self, some: Matrix, others: Matrix) -> np.ndarray:
        return kernel(self._hyperparameters, terms(self._layout, self._hyperparameters, some, others))

    def prior_mean(self, candidates: Matrix) -> np.ndarray:
        """float64 (candidates,): the expected scores before anything is known."""
        return np.asarray(candidates.basis @ self._layout.basis.means)

    def prior_variance(self, candidates: Matrix) -> np.ndarray:
        """float64 (candidates,): that of the function before anything is known."""
        main, _, amplitudes = map(np.exp, self._hyperparameters)
        of_main = main.sum()
        total = (
            (amplitudes[MAIN] + amplitudes[PAIRS] * of_main) * of_main
            + amplitudes[JOINT]
            + amplitudes[COUNTS]
            + amplitudes[CONSTANT]
        )
        return np.asarray(total + candidates.basis**2 @ self._layout.basis.deviations**2)

    @property
    def basis_weights(self) -> np.ndarray:
        """float64 (functions,): the expected weights of the basis functions, given the scores."""
        means, deviations = self._layout.basis
        return np.asarray(means + deviations**2 * (solved(self.factor, self.known.basis).T @ self.solved_scores))


class Prediction:
    """The scores of candidates.

    Attributes:
        mean: float64 (candidates,), the expected score.
        variance: float64 (candidates,), that of the function, without noise.
    """

    def __init__(self, process: GaussianProcess, candidates: Matrix) -> None:
        self._process = process
        self._candidates = candidates
        # float64 (known, candidates)
        self._solved = solved(process.factor, process.covariance(process.known, candidates))
        self.mean = self._solved.T @ process.solved_scores + process.prior_mean(candidates)
        self.variance = np.maximum(process.prior_variance(candidates) - (self._solved**2).sum(axis=0), 0.0)

    def covariance(self, other: Prediction) -> np.ndarray:
        """float64 (candidates, candidates of the other): that of the function at both."""
        prior = self._process.covariance(self._candidates, other._candidates)
        return np.asarray(prior - self._solved.T @ other._solved)


def solved(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The inverse of a lower triangular matrix times a matrix or a vector."""
    return np.asarray(solve_triangular(factor, right, lower=True)) if len(right) else right
