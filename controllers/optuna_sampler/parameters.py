"""Decisions as Optuna's parameters: one for a choice, one for every bit of a `Links`."""

from __future__ import annotations

import dataclasses
import decimal
import functools
import itertools
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.numeric import Numeric

KEPT = 4_096  # parameters that are cached


@dataclasses.dataclass(frozen=True)
class Parameter:
    """The parameter that Optuna samples in place of one token.

    Attributes:
        name: differs from the names of parameters with other distributions, because Optuna refuses two distributions
            under one name.
        distribution: has one value for each token.
        values: all values of the distribution, ascending.
        tokens: the tokens of the values, in their order.
        ordered: whether neighbours in `tokens` are neighbours in a range.
    """

    name: str
    distribution: BaseDistribution
    values: tuple[Any, ...]
    tokens: tuple[int, ...]
    ordered: bool

    def value(self, token: int) -> Any:
        """The value that stands for a token in a trial."""
        return self.values[self.tokens.index(token)]

    def token(self, value: Any) -> int:
        """The token of a value that Optuna suggests. A real number may differ from its value by rounding."""
        if isinstance(self.distribution, FloatDistribution):
            return self.tokens[round((value - self.distribution.low) / self.distribution.step)]
        return self.tokens[self.values.index(value)]

    def nearest(self, token: int, allowed: Sequence[int]) -> int:
        """The allowed token whose place in the order is nearest; the lower one of two."""
        place = self.tokens.index(token)
        return min(allowed, key=lambda other: (abs(self.tokens.index(other) - place), self.tokens.index(other)))


def parameters_of(decision: Decision) -> list[Parameter | None]:
    """The parameter of each token; None if the narrowing leaves the token one value."""
    if not isinstance(decision, Choice):
        return [_link(decision.name, place) if forced is None else None for place, forced in enumerate(decision.forced)]
    if decision.forced != (None,):
        return [None]
    tokens = [token for token in range(len(decision.options)) if decision.allows(token)]
    if not isinstance(decision, Numeric):
        return [_categories(decision.name, tuple(tokens))]
    tokens.sort(key=lambda token: decision.options[token])
    return [_numbers(decision.name, tuple(tokens), tuple(decision.options[token] for token in tokens), decision.log)]


# Cached, because Optuna compares the distributions of all trials at every draw, and an object is compared with itself
# quickly.


@functools.lru_cache(KEPT)
def _link(name: str, place: int) -> Parameter:
    return Parameter(f"{name}/link {place}", CategoricalDistribution((0, 1)), (0, 1), (0, 1), ordered=False)


@functools.lru_cache(KEPT)
def _categories(name: str, tokens: tuple[int, ...]) -> Parameter:
    values = tuple(range(len(tokens)))
    return Parameter(f"{name}/{len(values)}", CategoricalDistribution(values), values, tokens, ordered=False)


@functools.lru_cache(KEPT)
def _numbers(name: str, tokens: tuple[int, ...], values: tuple[Any, ...], log: bool) -> Parameter:
    distribution = _of_numbers(values, log)
    if distribution is None:
        # Optuna has no distribution with steps on a log scale, and none of arbitrary numbers. The places of the numbers
        # have the same order, and equal distances.
        values = tuple(range(len(values)))
        distribution = IntDistribution(0, len(values) - 1)
    return Parameter(f"{name}/{distribution}", distribution, values, tokens, ordered=True)


def _of_numbers(values: Sequence[Any], log: bool) -> BaseDistribution | None:
    """Optuna's distribution of exactly these ascending numbers; None if it has none."""
    exact = [decimal.Decimal(str(value)) for value in values]
    steps = {after - before for before, after in itertools.pairwise(exact)}
    if len(steps) > 1:
        return None
    (step,) = steps
    whole = all(isinstance(value, int) for value in values)
    if log:
        return IntDistribution(values[0], values[-1], log=True) if whole and step == 1 else None
    if whole:
        return IntDistribution(values[0], values[-1], step=int(step))
    return FloatDistribution(values[0], values[-1], step=float(step))
