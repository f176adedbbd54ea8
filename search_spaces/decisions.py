"""The decisions that a space can yield: one of n options, or any subset of the earlier layers. `numeric` has choices of
numbers in a range."""

from __future__ import annotations

import dataclasses
import functools
import re
from numbers import Integral
from typing import Any, ClassVar

from automl.search_spaces.plain import is_plain, plain


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several options; its answer is one token, the index into `options`.

    `name` is unique within a child. Options are plain values: NumPy's numbers become Python's. Choices of one `kind`
    share an embedding and a softmax in the policy; the default is the name without its digits, with the options as they
    were given. `allowed` is the mask of a narrowing: masked options are never drawn, and all options keep their tokens.
    """

    name: str
    options: tuple[Any, ...]
    kind: str = ""
    allowed: tuple[bool, ...] | None = None

    ordered: ClassVar[bool] = False  # whether options are numbers in a range; see `numeric.Numeric.unit_value`

    def __post_init__(self) -> None:
        check_names("Choice", self.name, self.kind)
        try:
            options = iter(self.options)
        except TypeError:  # not isinstance: a zero-dimensional array is an Iterable, but iter() fails
            raise ValueError(f"The options of {self.name!r} are {self.options!r}; give them as a tuple.") from None
        # A set of numbers has the same order in every process.
        if isinstance(self.options, set | frozenset) and not all(
            isinstance(option, int | float) for option in self.options
        ):
            raise ValueError(
                f"The options of {self.name!r} are a set, which has another order in every process; give them as a "
                "tuple, or sorted(...)."
            )
        given = tuple(options)
        if not given:
            raise ValueError(f"Choice {self.name!r} has no options; give it at least one.")
        try:
            converted, kind = _scalars_and_kind(self.name, *given)
        except TypeError:  # an option is no scalar
            converted, kind = plain(given), _default_kind(self.name, given)
        object.__setattr__(self, "options", converted)
        self._check_mask()
        if not self.kind:
            object.__setattr__(self, "kind", kind)

    def _check_mask(self) -> None:
        if self.allowed is not None and (len(self.allowed) != len(self.options) or not any(self.allowed)):
            what = f"{type(self).__name__} {self.name!r}"
            raise ValueError(f"{what}: the mask {self.allowed} must allow at least one of {self.options}.")

    @property
    def num_tokens(self) -> int:
        return 1

    @property
    def forced(self) -> tuple[int | None, ...]:
        """The only allowed token, or None if there are several. A forced token has no log-probability."""
        if len(self.options) > 1 and self.allowed is None:
            return (None,)
        possible = [index for index in range(len(self.options)) if self.allows(index)]
        return (possible[0] if len(possible) == 1 else None,)

    def allows(self, token: int) -> bool:
        return self.allowed is None or self.allowed[token]

    def admits(self, tokens: tuple[int, ...]) -> bool:
        """Whether these tokens are a valid answer under the narrowing."""
        return len(tokens) == 1 and 0 <= tokens[0] < len(self.options) and self.allows(tokens[0])

    def check(self, tokens: tuple[int, ...]) -> None:
        (token,) = tokens
        if not 0 <= token < len(self.options):
            raise ValueError(
                f"Token {token} is out of range for {self.name!r}: it has {len(self.options)} options "
                f"(0 to {len(self.options) - 1}). Was this child sampled from another search space?"
            )

    def value(self, tokens: tuple[int, ...]) -> Any:
        """The option, which the space receives."""
        return self.options[tokens[0]]


@dataclasses.dataclass(frozen=True)
class Links:
    """Any subset of `count` earlier layers; its answer is `count` tokens of 0 or 1, oldest layer first.

    `count` equals the number of earlier `Links` of the same kind in this child: bit j links to the layer of the j-th.
    `forced_bits` is a narrowing: a bit that is not None is never drawn.
    """

    name: str
    count: int
    kind: str = ""
    forced_bits: tuple[int | None, ...] | None = None

    ordered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_names("Links", self.name, self.kind)
        if isinstance(self.count, bool) or not isinstance(self.count, Integral) or self.count < 0:
            raise ValueError(f"Links {self.name!r}: count is {self.count!r}; it must be a whole number, 0 or more.")
        object.__setattr__(self, "count", int(self.count))
        if self.forced_bits is not None and len(self.forced_bits) != self.count:
            raise ValueError(f"Links {self.name!r}: {len(self.forced_bits)} forced bits for {self.count} layers.")
        if not self.kind:
            object.__setattr__(self, "kind", without_digits(self.name))

    @property
    def num_tokens(self) -> int:
        return self.count

    @property
    def forced(self) -> tuple[int | None, ...]:
        return (None,) * self.count if self.forced_bits is None else self.forced_bits

    def admits(self, tokens: tuple[int, ...]) -> bool:
        """Whether these tokens are a valid answer under the narrowing."""
        return len(tokens) == self.count and all(
            token in (0, 1) and forced in (None, token) for forced, token in zip(self.forced, tokens, strict=True)
        )

    def check(self, tokens: tuple[int, ...]) -> None:
        for token in tokens:
            if token not in (0, 1):
                raise ValueError(
                    f"Token {token} is out of range for {self.name!r}: each of its {self.count} bits is 0 or 1. "
                    "Was this child sampled from another search space?"
                )

    def value(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """The indices of the linked layers, ascending, which the space receives."""
        return tuple(index for index, bit in enumerate(tokens) if bit)


Decision = Choice | Links


def check_names(what: str, name: Any, kind: Any) -> None:
    """Raises ValueError if a decision's name or kind is not a string."""
    if not isinstance(name, str):
        raise ValueError(f"A {what} has the name {name!r}; a decision's name is a text.")
    if not isinstance(kind, str):
        raise ValueError(f"{what} {name!r} has the kind {kind!r}; a decision's kind is a text.")


@functools.lru_cache(4096)  # spaces make the same decisions for every child
def without_digits(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _default_kind(name: str, options: tuple[Any, ...]) -> str:
    return f"{without_digits(name)}{list(options)!r}"


@functools.lru_cache(4096, typed=True)  # typed, because True, 1 and 1.0 are equal
def _scalars_and_kind(name: str, *options: Any) -> tuple[tuple[Any, ...], str]:
    """Options that are Python scalars, and the default kind of such a choice.

    Raises:
        TypeError: an option is something else, or a zero: 0.0 equals -0.0, and the cache would confuse them.
    """
    if not all(is_plain(option) and not (type(option) is float and option == 0.0) for option in options):
        raise TypeError
    return options, _default_kind(name, options)
