"""The hyperparameters of the reward model, from the children that were trained."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize

from automl.controllers.reward_model.features import Matrix
from automl.controllers.reward_model.gaussian_process import (
    CONSTANT,
    COUNT_SCALE,
    COUNTS,
    JITTER,
    JOINT,
    MAIN,
    NOISE,
    PAIRS,
    Hyperparameters,
    Layout,
    kernel,
    squared_distances,
    terms,
)

MAX_ITERATIONS = 30
BOUNDS = (-9.0, 5.0)  # of each logarithm
WEIGHT_DEVIATION = 1.0  # of the prior, of the logarithm of a decision's weight
AMPLITUDE_DEVIATIONS = np.array([1.0, 1.0, 1.0, 1.5, 1.0, 1.5, 1.5])  # of the prior, in the order of the amplitudes
IMPOSSIBLE = 1e10  # the loss where the covariance has no Cholesky factor


def fit(layout: Layout, matrix: Matrix, scores: np.ndarray) -> Hyperparameters:
    """The hyperparameters of the highest posterior density, by L-BFGS from the prior's mean.

    Args:
        scores: float64 (n,).

    Source: Rasmussen & Williams 2006, section 5.4.1, with normal priors on the logarithms.
    """
    start = np.concatenate(Hyperparameters.prior(layout.num_decisions))
    found = minimize(
        lambda vector: loss(layout, matrix, scores, vector),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[BOUNDS] * len(start),
        options={"maxiter": MAX_ITERATIONS},
    )
    return _split(found.x)


def loss(layout: Layout, matrix: Matrix, scores: np.ndarray, vector: np.ndarray) -> tuple[float, np.ndarray]:
    """The negative logarithm of the posterior density, up to a constant, and its gradient.

    Args:
        vector: float64 (2 * decisions + 7,), the hyperparameters one after the other.
    """
    hyperparameters = _split(vector)
    found = terms(layout, hyperparameters, matrix, matrix)
    covariance = kernel(hyperparameters, found)
    main, joint, amplitudes = map(np.exp, hyperparameters)
    covariance[np.diag_indices(len(scores))] += amplitudes[NOISE] + JITTER
    try:
        factor = cholesky(covariance, lower=True)
    except LinAlgError:
        return IMPOSSIBLE, np.zeros_like(vector)
    inverse = cho_solve((factor, True), np.eye(len(scores)))
    residuals = scores - matrix.basis @ layout.basis.means
    solved = inverse @ residuals
    value = 0.5 * float(residuals @ solved) + float(np.log(np.diag(factor)).sum())

    # d value / d h = 1/2 tr((K^-1 - a a^T) dK/dh), with a = K^-1 (scores - their prior means)
    outer = inverse - np.outer(solved, solved)
    with_joint = outer * found.joint
    with_counts = outer * found.counts
    standardized = matrix.counts / layout.spread
    squares = squared_distances(standardized, standardized)
    with_main = outer * found.main
    by_main = (amplitudes[MAIN] + 2.0 * amplitudes[PAIRS] * found.main) * outer  # d value / d main, of each pair
    of_main = main * (by_main.sum() - _sums(layout, by_main, matrix.columns))
    of_joint = -joint * _sums(layout, with_joint, matrix.columns)
    of_amplitudes = np.zeros(len(amplitudes))
    of_amplitudes[MAIN] = with_main.sum()
    of_amplitudes[PAIRS] = (with_main * found.main).sum()
    of_amplitudes[JOINT] = with_joint.sum()
    of_amplitudes[COUNTS] = with_counts.sum()
    of_amplitudes[COUNT_SCALE] = -amplitudes[COUNTS] * (with_counts * squares).sum()
    of_amplitudes[CONSTANT] = outer.sum()
    of_amplitudes[NOISE] = np.trace(outer)
    gradient = 0.5 * np.concatenate([of_main, amplitudes[JOINT] * of_joint, amplitudes * of_amplitudes])

    size = layout.num_decisions
    deviations = np.concatenate([np.full(2 * size, WEIGHT_DEVIATION), AMPLITUDE_DEVIATIONS])
    standard = (vector - np.concatenate(Hyperparameters.prior(size))) / deviations
    return value + 0.5 * float(standard @ standard), gradient + standard / deviations


def _split(vector: np.ndarray) -> Hyperparameters:
    size = (len(vector) - len(AMPLITUDE_DEVIATIONS)) // 2
    return Hyperparameters(vector[:size], vector[size : 2 * size], vector[2 * size :])


def _sums(layout: Layout, factors: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 (decisions,): the sum over all pairs of a symmetric factor times the distance in each decision."""
    of_columns = 2.0 * (factors.sum(axis=1) @ columns**2 - (columns * (factors @ columns)).sum(axis=0))
    return np.bincount(layout.owners, of_columns * layout.scales, layout.num_decisions)
