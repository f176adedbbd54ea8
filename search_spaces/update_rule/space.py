"""Update rules in groups of five words: Bello et al. 2017 (arXiv:1709.07417), section 3."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.update_rule.language import BINARY, DECAYS, OPERANDS, UNARY
from automl.search_spaces.update_rule.spec import MAX_GROUPS, Group, UpdateRule


def update_rule(*, groups: Sequence[int] = (1, 2), decays: bool = False) -> Generator[Decision, Any, UpdateRule]:
    """Yields the decisions of one rule, group by group in the paper's order, and returns its `UpdateRule`.

    Args:
        groups: possible numbers of groups, each from 1 to 4. In the paper every search has one fixed number.
        decays: whether factors that go from 1 to 0 during training are operands, too.

    Raises:
        ValueError: an argument has an invalid value. The first step of the generator raises it.
    """
    listed = isinstance(groups, list | tuple) and bool(groups)
    if not listed or not all(type(number) is int and 1 <= number <= MAX_GROUPS for number in groups):
        raise ValueError(f"groups is {groups!r}; it must be a list of whole numbers from 1 to {MAX_GROUPS}.")
    if not isinstance(decays, bool):
        raise ValueError(f"decays is {decays!r}; it must be true or false.")
    words = (*OPERANDS, *DECAYS) if decays else OPERANDS
    count = yield Choice("groups", tuple(groups), kind="groups")
    chosen = []
    for index in range(count):
        name = f"group{index}"
        # Functions that are good for the whole rule may not be good for its operands, so these have other kinds.
        position = "last" if index == count - 1 else "earlier"
        known = (*words, *(f"r{earlier}" for earlier in range(index)))
        operand1 = yield Choice(f"{name}/operand1", known, kind=f"operand of {len(known)}")
        operand2 = yield Choice(f"{name}/operand2", known, kind=f"operand of {len(known)}")
        unary1 = yield Choice(f"{name}/unary1", UNARY, kind=f"{position}_unary")
        unary2 = yield Choice(f"{name}/unary2", UNARY, kind=f"{position}_unary")
        binary = yield Choice(f"{name}/binary", BINARY, kind=f"{position}_binary")
        chosen.append(Group(operand1, operand2, unary1, unary2, binary))
    return UpdateRule(tuple(chosen))


PRESETS: dict[str, dict[str, Any]] = {
    "small": {"groups": (1, 2), "decays": False},
    "paper": {"groups": (2,), "decays": False},
    "decays": {"groups": (3,), "decays": True},
}

SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {}
