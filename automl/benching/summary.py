"""The report of a bench: means over seeds and paired differences by seed, each with a confidence interval."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from automl.benching.searches import History

LEVEL, RESAMPLES = 0.95, 10_000
FEW = 20  # seeds; with fewer, an interval is Student's
AT_OPTIMUM = 1e-9  # regret below which a search has found the optimum


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds. `low` and `high` bound its 95 % confidence interval; they are None with one seed."""

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
        top: by k, the mean of the best k rewards so far; None where a search has fewer than k children.
        regret: the optimum minus the value without noise of the child with the best reward; None if the optimum is not
            known.
        optimal: the share of searches whose best child is an optimum.
    """

    competitor: str
    budget: int
    seeds: int
    best: Mean
    top: Mapping[int, Mean | None]
    regret: Mean | None
    optimal: float | None


@dataclasses.dataclass(frozen=True)
class Lead:
    """How much better the first competitor is than another one at a budget, compared seed by seed.

    Attributes:
        measure: `regret`, or `top K` for the mean of the best K rewards.
        lead: the mean of the paired differences; positive where the first competitor is better.
        ahead, behind: the number of seeds with which the first competitor is better, and worse.
    """

    competitor: str
    over: str
    budget: int
    measure: str
    seeds: int
    lead: Mean
    ahead: int
    behind: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """The time that a competitor takes.

    Attributes:
        milliseconds: the controller's own time for one child; None if no child was timed.
        children_per_second: the children that one search trains in a second; None if no child was timed.
    """

    competitor: str
    milliseconds: float | None
    children_per_second: float | None


def best_curve(history: History, length: int) -> np.ndarray:
    """The best reward after 1, 2, … children, float64 (length,). An exhausted search keeps its best."""
    return _padded(np.maximum.accumulate(np.array(history.rewards[:length])), length)


def incumbent_values(history: History, length: int) -> np.ndarray:
    """The value without noise of the child that has the best reward after 1, 2, … children, float64 (length,)."""
    rewards = np.array(history.rewards[:length])
    values = rewards if history.values is None else np.array(history.values[:length])
    is_best = np.concatenate([[True], rewards[1:] > np.maximum.accumulate(rewards)[:-1]])
    incumbents = np.maximum.accumulate(np.where(is_best, np.arange(len(rewards)), 0))
    return _padded(values[incumbents], length)


def top_mean(history: History, budget: int, k: int) -> float | None:
    """The mean of the best k rewards of the first `budget` children; None where there are fewer than k."""
    rewards = np.sort(np.array(history.rewards[:budget]))
    return float(rewards[-k:].mean()) if len(rewards) >= k else None


def mean_of(values: Sequence[float] | np.ndarray) -> Mean:
    """The mean and its interval: with fewer than `FEW` values Student's, else a percentile bootstrap with a fixed seed.

    A bootstrap mean never leaves the range of the values, so with two values its interval would cover the true mean
    only half of the time, and with three 75 %. Student's interval assumes normal values and is exact for them.

    Source: Efron & Tibshirani 1993, "An introduction to the bootstrap", chapters 12 and 13.
    """
    array = np.asarray(values, float)
    count, mean = len(array), float(np.mean(values))
    if count < 2:
        return Mean(mean, None, None)
    if count < FEW:
        half = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * float(array.std(ddof=1)) / math.sqrt(count)
        return Mean(mean, mean - half, mean + half)
    picked = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    low, high = np.quantile(array[picked].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(mean, float(low), float(high))


def rows_of(
    searches: Mapping[str, Sequence[History]], budgets: Sequence[int], optimum: float | None, top: Sequence[int] = ()
) -> list[Row]:
    """One row for each budget and competitor, by budget. Within a budget, the competitor with the best mean is first.

    Args:
        searches: by competitor, the history of each seed; at least one.
        top: the numbers k of best rewards whose mean a row has.
    """
    rows = []
    for budget in budgets:
        of_budget = []
        for competitor, histories in searches.items():
            best = mean_of([best_curve(one, budget)[-1] for one in histories])
            means = {k: _mean_if_all([top_mean(one, budget, k) for one in histories]) for k in top}
            regret = optimal = None
            if optimum is not None:
                regrets = np.array([_regret(one, budget, optimum) for one in histories])
                regret, optimal = mean_of(regrets), float((regrets < AT_OPTIMUM).mean())
            of_budget.append(Row(competitor, budget, len(histories), best, means, regret, optimal))
        rows += sorted(of_budget, key=lambda row: -row.best.mean if row.regret is None else row.regret.mean)
    return rows


def leads_of(
    searches: Mapping[str, Sequence[History]], budgets: Sequence[int], optimum: float | None, top: Sequence[int]
) -> list[Lead]:
    """The leads of the first competitor, by budget, other competitor and measure.

    Args:
        searches: as for `rows_of`; the searches at one place of two competitors have the same seed.
        optimum: None leaves out the leads in regret.
        top: the numbers k of best rewards that are compared. One that is above the number of children of a search is
            left out.
    """
    first, *others = searches
    measures: dict[str, Callable[[History, int], float | None]] = {}
    if optimum is not None:
        measures["regret"] = lambda history, budget: -_regret(history, budget, optimum)
    for k in top:
        measures[f"top {k}"] = functools.partial(top_mean, k=k)
    leads = []
    for budget, other, (measure, value_of) in itertools.product(budgets, others, measures.items()):
        pairs = [
            (value_of(one, budget), value_of(two, budget))
            for one, two in zip(searches[first], searches[other], strict=True)
        ]
        differences = np.array([one - two for one, two in pairs if one is not None and two is not None])
        if len(differences) == len(pairs):
            ahead, behind = int((differences > 0).sum()), int((differences < 0).sum())
            leads.append(Lead(first, other, budget, measure, len(pairs), mean_of(differences), ahead, behind))
    return leads


def _regret(history: History, budget: int, optimum: float) -> float:
    return float(optimum - incumbent_values(history, budget)[-1])


def _mean_if_all(values: Sequence[float | None]) -> Mean | None:
    known = [value for value in values if value is not None]
    return mean_of(known) if len(known) == len(values) else None


def costs_of(searches: Mapping[str, Sequence[History]]) -> list[Cost]:
    costs = []
    for competitor, histories in searches.items():
        timed = sum(one.timed for one in histories)
        taken, controlling = sum(one.seconds for one in histories), sum(one.controller_seconds for one in histories)
        costs.append(
            Cost(competitor, 1000 * controlling / timed, timed / taken) if timed else Cost(competitor, None, None)
        )
    return costs


def to_json(row: Row | Lead | Cost) -> dict[str, Any]:
    return dataclasses.asdict(row)


def _padded(curve: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([curve, np.repeat(curve[-1:], length - len(curve))])
