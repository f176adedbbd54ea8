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

KEPT = 4_096  # parameters that are remembered


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What Optuna samples in place of one token.

    Attributes:
        name: unique among parameters with another distribution, since Optuna refuses one name with two of them.
        distribution: of as many values as there are tokens.
        values: all that the distribution has, ascending.
        tokens: those of the values, in their order.
        ordered: whether neighbours in `tokens` are neighbours in a range.
    """

    name: str
    distribution: BaseDistribution
    values: tuple[Any, ...]
    tokens: tuple[int, ...]
    ordered: bool

    def value(self, token: int) -> Any:
        """The value of a token, as Optuna has it in a trial."""
        return self.values[self.tokens.index(token)]

    def token(self, value: Any) -> int:
        """The token of a value that Optuna suggests; a real number is one of them but for rounding."""
        if isinstance(self.distribution, FloatDistribution):
            return self.tokens[round((value - self.distribution.low) / self.distribution.step)]
        return self.tokens[self.values.index(value)]

    def nearest(self, token: int, allowed: Sequence[int]) -> int:
        """The allowed token whose place in the order is nearest; the lower one of two."""
        place = self.tokens.index(token)
        return min(allowed, key=lambda other: (abs(self.tokens.index(other) - place), self.tokens.index(other)))


def parameters_of(decision: Decision) -> list[Parameter | None]:
    """The parameter of each token; None where the decision's narrowing leaves one value."""
    if not isinstance(decision, Choice):
        return [_link(decision.name, place) if forced is None else None for place, forced in enumerate(decision.forced)]
    if decision.forced != (None,):
        return [None]
    tokens = [token for token in range(len(decision.options)) if decision.allows(token)]
    if not isinstance(decision, Numeric):
        return [_categories(decision.name, tuple(tokens))]
    tokens.sort(key=lambda token: decision.options[token])
    return [_numbers(decision.name, tuple(tokens), tuple(decision.options[token] for token in tokens), decision.log)]


# Remembered, because Optuna compares the distributions of all trials at every draw, and equal objects are quick to
# compare where they are one object.


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
        # Optuna has no steps on a log scale. The places of numbers are the same to it: equal distances on that scale.
        values = tuple(range(len(values)))
        distribution = IntDistribution(0, len(values) - 1)
    return Parameter(f"{name}/{distribution}", distribution, values, tokens, ordered=True)


def _of_numbers(values: Sequence[Any], log: bool) -> BaseDistribution | None:
    """The distribution of exactly these ascending numbers; None where Optuna has none."""
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
