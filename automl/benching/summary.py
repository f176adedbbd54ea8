"""What a bench says of its searches: means over seeds, with confidence intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from automl.benching.searches import Found

LEVEL, RESAMPLES = 0.95, 10_000
AT_OPTIMUM = 1e-9  # regret below which a search has found the optimum


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds; `low` and `high` bound its 95 % confidence interval, None for one seed."""

    mean: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A competitor at a budget.

    Attributes:
        budget: the number of trained children.
        seeds: the number of searches.
        best: the best reward so far.
        regret: the optimum minus the value of the best child, without noise; None where the optimum is not known.
        optimal: the share of searches whose best child is an optimum.
    """

    competitor: str
    budget: int
    seeds: int
    best: Mean
    regret: Mean | None
    optimal: float | None


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a competitor takes.

    Attributes:
        milliseconds: of the controller for one child; None where nothing was timed.
        children_per_second: of one search; None likewise.
    """

    competitor: str
    milliseconds: float | None
    children_per_second: float | None


def best_curve(found: Found, length: int) -> np.ndarray:
    """The best reward after 1, 2, … children, float64 (length,). A search that exhausted its space keeps its best."""
    return _padded(np.maximum.accumulate(np.array(found.rewards[:length])), length)


def incumbent_values(found: Found, length: int) -> np.ndarray:
    """The value without noise of the child that has the best reward after 1, 2, … children, float64 (length,)."""
    rewards = np.array(found.rewards[:length])
    values = rewards if found.values is None else np.array(found.values[:length])
    is_best = np.concatenate([[True], rewards[1:] > np.maximum.accumulate(rewards)[:-1]])
    incumbents = np.maximum.accumulate(np.where(is_best, np.arange(len(rewards)), 0))
    return _padded(values[incumbents], length)


def mean_of(values: Sequence[float] | np.ndarray) -> Mean:
    """The mean, and a percentile bootstrap of it with a fixed seed.

    Source: Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    array = np.asarray(values, float)
    if len(array) < 2:
        return Mean(float(array.mean()), None, None)
    picked = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[picked].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(float(array.mean()), float(low), float(high))


def rows_of(searches: Mapping[str, Sequence[Found]], budgets: Sequence[int], optimum: float | None) -> list[Row]:
    """One row for each budget and competitor, in this order; of a budget the competitor with the best mean first.

    Args:
        searches: by competitor, what was found for each seed; each at least one.
    """
    rows = []
    for budget in budgets:
        of_budget = []
        for competitor, found in searches.items():
            best = mean_of([best_curve(one, budget)[-1] for one in found])
            regret = optimal = None
            if optimum is not None:
                regrets = optimum - np.array([incumbent_values(one, budget)[-1] for one in found])
                regret, optimal = mean_of(regrets), float((regrets < AT_OPTIMUM).mean())
            of_budget.append(Row(competitor, budget, len(found), best, regret, optimal))
        rows += sorted(of_budget, key=lambda row: -row.best.mean if row.regret is None else row.regret.mean)
    return rows


def costs_of(searches: Mapping[str, Sequence[Found]]) -> list[Cost]:
    costs = []
    for competitor, found in searches.items():
        timed = sum(one.timed for one in found)
        taken, controlling = sum(one.seconds for one in found), sum(one.controller_seconds for one in found)
        costs.append(
            Cost(competitor, 1000 * controlling / timed, timed / taken) if timed else Cost(competitor, None, None)
        )
    return costs


def to_json(row: Row | Cost) -> dict[str, Any]:
    return dataclasses.asdict(row)


def _padded(curve: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([curve, np.repeat(curve[-1:], length - len(curve))])
