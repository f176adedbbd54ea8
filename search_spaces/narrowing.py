"""Narrowing: the user's rules remove options from a space. The other options keep their tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.names import nearest_first
from automl.search_spaces.numeric import Numeric


@dataclasses.dataclass(frozen=True)
class Rule:
    """`--fix PATTERN=VALUE` (fix) or `--only PATTERN=VALUE,VALUE`; values are strings, compared with `str(option)`.

    For `Integer` and `Real` the values are numbers, and with `--only` also ranges, `1e-4..1e-2`, bounds included. For
    `Links` the values are layer indices, or `none`, or `all`: with `--fix` exactly these layers are linked, with
    `--only` no other layer can be linked.
    """

    pattern: str
    values: tuple[str, ...]
    fix: bool

    def __str__(self) -> str:
        return f"{'--fix' if self.fix else '--only'} {self.pattern}={','.join(self.values)}"

    def matches(self, decision: Decision) -> bool:
        return self._match(decision.name) is not None

    @functools.cached_property
    def _match(self) -> Callable[[str], re.Match[str] | None]:
        return re.compile(fnmatch.translate(self.pattern)).match


def parse_rule(text: str, *, fix: bool) -> Rule:
    """Reads `layer*/filter_height=3,5`.

    Raises:
        ValueError: there is no `=`, no name or no value.
    """
    pattern, equals, values = text.partition("=")
    flag = "--fix" if fix else "--only"
    if not equals or not pattern or not values:
        raise ValueError(f"{flag} {text!r} is not of the form NAME=VALUE, for example layer*/filter_height=3.")
    return Rule(pattern.strip(), tuple(value.strip() for value in values.split(",")), fix)


@dataclasses.dataclass(frozen=True)
class Narrowing:
    """The rules of one search. A walk applies them, in their order, to every decision."""

    rules: tuple[Rule, ...] = ()

    def __call__(self, decision: Decision) -> Decision:
        for rule in self.rules:
            if rule.matches(decision):
                decision = (
                    _narrow_choice(decision, rule) if isinstance(decision, Choice) else _narrow_links(decision, rule)
                )
        return decision

    def check(self, decisions: Iterable[Decision]) -> None:
        """Checks every rule against the known decisions of a space.

        Raises:
            ValueError: a pattern matches no decision, or a value is not an option of any matching decision.
        """
        known = {decision.name: decision for decision in decisions}
        for rule in self.rules:
            matched = [decision for decision in known.values() if rule.matches(decision)]
            if not matched:
                raise ValueError(
                    f"{rule}: no decision of this space is called {rule.pattern!r}; "
                    f"it has {nearest_first(rule.pattern, list(known))}."
                )
            choices = [decision for decision in matched if isinstance(decision, Choice)]
            if choices and rule.fix and len(rule.values) > 1:
                raise ValueError(f"{rule}: --fix takes one value; use --only to leave several.")
            numeric = any(isinstance(choice, Numeric) for choice in choices)
            if numeric and rule.fix and ".." in rule.values[0]:
                raise ValueError(f"{rule}: --fix takes one value and no range; use --only to leave several.")
            for value in rule.values:
                if choices and not any(_tokens(choice, value) for choice in choices):
                    raise ValueError(f"{rule}: {_why_none(choices, value)}")
            most = max((decision.count for decision in matched if isinstance(decision, Links)), default=0)
            # If the pattern is the name of a decision, `_layers` raises a better message.
            if not choices and rule.pattern not in known and (wrong := _outside(rule.values, most)):
                raise ValueError(
                    f"{rule}: none of these has an earlier layer {wrong[0]}; the last has {most} (from 0)."
                )
        for decision in known.values():
            self(decision)


def _tokens(choice: Choice, value: str) -> list[int]:
    """The tokens of the options that a rule's value names."""
    if not isinstance(choice, Numeric):
        return [token for token, option in enumerate(choice.options) if str(option) == value]
    numbers = _numbers(value)
    if numbers is None:
        return []
    if len(numbers) == 2:
        return choice.tokens_between(*numbers)
    with contextlib.suppress(ValueError):
        return [choice.token_of(numbers[0])]
    return []


def _numbers(value: str) -> list[float] | None:
    """The number that a value stands for, or the two bounds of a range; None if it is neither."""
    low, dots, high = value.partition("..")
    try:
        numbers = [float(low), float(high)] if dots else [float(low)]
    except ValueError:
        return None
    return None if any(map(math.isnan, numbers)) else numbers


def _why_none(choices: Sequence[Choice], value: str) -> str:
    """Why a value names no option of any of these choices."""
    numeric = next((choice for choice in choices if isinstance(choice, Numeric)), None)
    if numeric is None:
        options = sorted({str(option) for choice in choices for option in choice.options}, key=_numbers_first)
        return f"{value!r} is not an option; there are {', '.join(options)}."
    numbers, low, high = _numbers(value), min(numeric.options), max(numeric.options)
    if numbers is None:
        return f"{value!r} is neither a number nor a range; write for example {high} or {low}..{high}."
    if len(numbers) == 2:
        return f"no value of {numeric.name!r} lies in the range {value}; they go from {low} to {high}."
    try:
        numeric.token_of(numbers[0])
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{value} is an option")


def _narrow_choice(choice: Choice, rule: Rule) -> Choice:
    named = {token for value in rule.values for token in _tokens(choice, value)}
    allowed = tuple(choice.allows(token) and token in named for token in range(len(choice.options)))
    if not any(allowed):
        left = ", ".join(str(option) for i, option in enumerate(choice.options) if choice.allows(i))
        raise ValueError(f"{rule} leaves no option of {choice.name!r}; before it there were {left}.")
    return dataclasses.replace(choice, allowed=allowed)


def _narrow_links(links: Links, rule: Rule) -> Links:
    linked = _layers(links, rule)
    for index, bit in enumerate(links.forced):
        if (bit == 1 and index not in linked) or (bit == 0 and index in linked and rule.fix):
            state = "linked" if bit else "not linked"
            raise ValueError(
                f"{rule} contradicts an earlier rule, by which layer {index} is {state} to {links.name!r}."
            )
    bits = tuple(
        bit if bit is not None else (1 if rule.fix else None) if index in linked else 0
        for index, bit in enumerate(links.forced)
    )
    return dataclasses.replace(links, forced_bits=bits)


def _layers(links: Links, rule: Rule) -> set[int]:
    if rule.values == ("none",):
        return set()
    if rule.values == ("all",):
        return set(range(links.count))
    try:
        layers = {int(value) for value in rule.values}
    except ValueError:
        raise ValueError(f"{rule}: the layers of {links.name!r} are numbers, 'none' or 'all'.") from None
    # A pattern such as layer*/inputs=0 also matches the first layer, which has no layer 0 before it.
    exact = rule.pattern == links.name
    if exact and (wrong := sorted(layer for layer in layers if not 0 <= layer < links.count)):
        raise ValueError(f"{rule}: {links.name!r} has no earlier layer {wrong[0]}; it has {links.count} (from 0).")
    return layers


def _outside(values: Sequence[str], count: int) -> list[str]:
    """The values that are whole numbers, but not the index of one of `count` layers."""
    return [value for value in values if value.removeprefix("-").isdecimal() and not 0 <= int(value) < count]


def _numbers_first(text: str) -> tuple[Any, ...]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)
