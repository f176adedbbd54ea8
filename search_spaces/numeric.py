"""Decisions on a number: choices of numbers in a range, or of given numbers, whose order a controller may use."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from numbers import Integral
from numbers import Real as RealNumber
from typing import Any, ClassVar

from automl.search_spaces.decisions import Choice, check_names, without_digits
from automl.search_spaces.plain import plain

MAX_OPTIONS = 1000  # a softmax of the policy has one output for each
RELATIVE_TOLERANCE = 1e-9  # numbers this close are the same option
DIGITS = 12  # significant digits of a real option: rounding makes it the same on every machine


@dataclasses.dataclass(frozen=True)
class Numeric(Choice):
    """The base of `Integer`, `Real` and `Ordinal`: a choice among numbers.

    The bounds of an `Integer` or a `Real` determine the options. If `options` are given, they must be the same numbers,
    in any order; tokens are indices into them.
    """

    options: tuple[Any, ...] = dataclasses.field(default=(), kw_only=True)
    kind: str = dataclasses.field(default="", kw_only=True)
    allowed: tuple[bool, ...] | None = dataclasses.field(default=None, kw_only=True)
    log: bool = dataclasses.field(default=False, kw_only=True)

    ordered: ClassVar[bool] = True
    type_name: ClassVar[str]  # the type in stored records

    @property
    def bounds(self) -> dict[str, Any]:
        """The type and the range, as the store records them."""
        of_choice = {field.name for field in dataclasses.fields(Choice)}
        fields = [field.name for field in dataclasses.fields(self) if field.name not in of_choice]
        return {"type": self.type_name} | {name: getattr(self, name) for name in fields}

    def unit_value(self, token: int) -> float:
        """The position of an option between the bounds: 0 at `low`, 1 at `high`, on a log scale if `log` is set."""
        low, high, value = (
            self._scaled(number) for number in (min(self.options), max(self.options), self.options[token])
        )
        return (value - low) / (high - low)

    def token_of(self, value: float) -> int:
        """The token of a number. Raises ValueError, which names the nearest options, if it is not an option."""
        for is_same in (operator.eq, _is_close):
            for token, option in enumerate(self.options):
                if is_same(value, option):
                    return token
        below = [option for option in self.options if option < value]
        above = [option for option in self.options if option > value]
        nearest = [*([max(below)] if below else []), *([min(above)] if above else [])]
        raise ValueError(
            f"{self.name!r} cannot be {value}; the nearest {'is' if len(nearest) == 1 else 'are'} "
            f"{' and '.join(map(str, nearest))}."
        )

    def tokens_between(self, low: float, high: float) -> list[int]:
        """The tokens of all options from `low` to `high`, both included."""
        return [
            token
            for token, option in enumerate(self.options)
            if (low <= option or _is_close(low, option)) and (option <= high or _is_close(option, high))
        ]

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else float(value)

    def _set_options(self, values: tuple[Any, ...], range_text: str) -> None:
        """Checks the options if they were given; otherwise sets them. Sets the kind if it was not given."""
        if self.options and self.options is not values and sorted(self.options) != list(values):
            raise ValueError(f"{self._title}: the options {self.options} are not the numbers in its range.")
        if not self.options:
            object.__setattr__(self, "options", values)
        if not self.kind:
            object.__setattr__(self, "kind", f"{without_digits(self.name)}[{range_text}{', log' * self.log}]")
        self._check_mask()

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} {self.name!r}"

    def _check_bounds(self, low: float, high: float) -> None:
        if type(self.log) is not bool:
            raise ValueError(f"{self._title}: log is {self.log!r}; it must be True or False.")
        if low >= high:
            raise ValueError(f"{self._title}: low is {low} and high is {high}; low must be below high.")
        if self.log and low <= 0:
            raise ValueError(f"{self._title}: low is {low}; on a log scale it must be above 0.")


@dataclasses.dataclass(frozen=True)
class Integer(Numeric):
    """A whole number from `low` to `high`, both included.

    Args:
        step: the difference between neighbouring values; with `log` their ratio, and 1 means every whole number.
        log: whether `unit_value` is on a log scale.
    """

    low: int
    high: int
    step: int = 1

    type_name: ClassVar[str] = "integer"

    def __post_init__(self) -> None:
        check_names("Integer", self.name, self.kind)
        for field in ("low", "high", "step"):
            value = plain(getattr(self, field))
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ValueError(f"{self._title}: {field} is {value!r}; it must be a whole number.")
            object.__setattr__(self, field, int(value))
        self._check_bounds(self.low, self.high)
        if self.step < 1:
            raise ValueError(f"{self._title}: step is {self.step}; it must be 1 or more.")
        values = _whole_numbers(self.low, self.high, self.step, self.log)
        if values is None:
            raise ValueError(
                f"{self._title} has more than {MAX_OPTIONS} values from {self.low} to {self.high}; give it a larger "
                "step."
            )
        if values[-1] != self.high:
            following = values[-1] * self.step if self.log and self.step > 1 else values[-1] + self.step
            reached = f"{values[-1]} or {following}" if len(values) > 1 else following
            what = "factors" if self.log and self.step > 1 else "steps"
            raise ValueError(
                f"{self._title}: {what} of {self.step} from {self.low} do not reach {self.high}; make high {reached}."
            )
        step = "" if self.step == 1 else f", step {self.step}"
        self._set_options(values, f"{self.low}..{self.high}{step}")


@dataclasses.dataclass(frozen=True)
class Real(Numeric):
    """One of `num_bins` real numbers at equal distances from `low` to `high`, both included.

    Args:
        log: whether the distances, and `unit_value`, are on a log scale.
    """

    low: float
    high: float
    num_bins: int

    type_name: ClassVar[str] = "real"

    def __post_init__(self) -> None:
        check_names("Real", self.name, self.kind)
        for field in ("low", "high"):
            value = plain(getattr(self, field))
            if isinstance(value, bool) or not isinstance(value, RealNumber) or not math.isfinite(value):
                raise ValueError(f"{self._title}: {field} is {value!r}; it must be a finite number.")
            object.__setattr__(self, field, float(value))
        self._check_bounds(self.low, self.high)
        num_bins = plain(self.num_bins)
        if isinstance(num_bins, bool) or not isinstance(num_bins, Integral) or not 2 <= int(num_bins) <= MAX_OPTIONS:
            raise ValueError(
                f"{self._title}: num_bins is {num_bins!r}; it must be a whole number from 2 to {MAX_OPTIONS}."
            )
        object.__setattr__(self, "num_bins", int(num_bins))
        values = _real_numbers(self.low, self.high, self.num_bins, self.log)
        if any(not before < after for before, after in itertools.pairwise(values)):
            raise ValueError(
                f"{self._title}: {self.low} and {self.high} are too close or too far apart for {self.num_bins} "
                "different numbers."
            )
        self._set_options(values, f"{self.low}..{self.high}, {self.num_bins} bins")


@dataclasses.dataclass(frozen=True)
class Ordinal(Numeric):
    """One of several given numbers, whose order is known and whose distances are not: neighbours are equally far apart.

    Args:
        options: 2 or more different numbers. Tokens are indices into them.
    """

    options: tuple[Any, ...]
    log: bool = dataclasses.field(default=False, init=False)

    type_name: ClassVar[str] = "ordinal"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in self.options:
            if type(option) not in (int, float) or not math.isfinite(option):
                raise ValueError(f"{self._title}: the option {option!r} is not a finite number.")
        if not 2 <= len(set(self.options)) == len(self.options) <= MAX_OPTIONS:
            raise ValueError(
                f"{self._title} has {len(self.options)} options, {len(set(self.options))} of them different; give 2 to "
                f"{MAX_OPTIONS} numbers, each of them once."
            )

    @property
    def bounds(self) -> dict[str, Any]:
        """The type alone, since the options are stored anyway."""
        return {"type": self.type_name}

    def unit_value(self, token: int) -> float:
        """The place of an option among the ascending ones: 0 for the lowest, 1 for the highest."""
        return sum(option < self.options[token] for option in self.options) / (len(self.options) - 1)


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE)


@functools.lru_cache(maxsize=256)  # a space yields the same decision in every walk
def _whole_numbers(low: int, high: int, step: int, log: bool) -> tuple[int, ...] | None:
    """The numbers from `low` that are at most `high`; None if there are more than MAX_OPTIONS."""
    if not log or step == 1:
        numbers = range(low, high + 1, step)
        return tuple(numbers) if len(numbers) <= MAX_OPTIONS else None
    powers = [low]
    while powers[-1] * step <= high:
        powers.append(powers[-1] * step)
    return tuple(powers) if len(powers) <= MAX_OPTIONS else None


@functools.lru_cache(maxsize=256)
def _real_numbers(low: float, high: float, count: int, log: bool) -> tuple[float, ...]:
    fractions = [index / (count - 1) for index in range(1, count - 1)]
    if log:
        start, end = math.log(low), math.log(high)
        between = [float(f"{math.exp(start + fraction * (end - start)):.{DIGITS}g}") for fraction in fractions]
    else:
        digits = DIGITS - 1 - math.floor(math.log10(max(abs(low), abs(high))))
        between = [round(low + fraction * (high - low), digits) + 0.0 for fraction in fractions]
    return (low, *between, high)
