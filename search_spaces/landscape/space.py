"""The spaces of synthetic landscapes. Each has one difficulty of real spaces; `child_trainers/landscapes` has the
rewards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping
from typing import Any

from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.names import validate_choice
from automl.search_spaces.numeric import Integer, Real
from automl.search_spaces.spec import Json
from automl.search_spaces.values import Values, values_of

LAYERS = 7
OPERATIONS = ("a", "b", "c")
LETTERS = ("a", "b", "c", "d")
FAMILIES: Mapping[str, int] = {
    "a": 4,
    "b": 6,
    "c": 8,
    "d": 10,
}  # the number of decisions that only the children of a family have
SHARED = 3
MANY, FEW = 40, 12
NUMBERS: tuple[Real | Integer, ...] = (
    Real("learning_rate", 1e-5, 1e-1, 20, log=True),
    Real("weight_decay", 1e-6, 1e-2, 20, log=True),
    Real("dropout", 0.0, 0.6, 13),
    Integer("layers", 1, 10),
    Integer("units", 16, 1024, 2, log=True),
    Integer("batch_size", 8, 128, 8),
)


@dataclasses.dataclass(frozen=True)
class Point(Values):
    """A child of a synthetic landscape.

    Attributes:
        landscape: the kind of its landscape, one of `KINDS`.
    """

    landscape: str

    @classmethod
    def from_json(cls, stored: Json) -> Point:
        values = values_of(stored)
        return cls(values, validate_choice("landscape", stored.get("landscape"), KINDS))


def landscape(*, kind: str = "links") -> Generator[Decision, Any, Point]:
    """Yields the decisions of a landscape and returns the `Point`.

    Args:
        kind: `links`: 7 layers with one of 3 operations and `Links` each; `conditional`: a family of four, each with 4,
            6, 8 or 10 decisions that only its children have, and 3 shared decisions; `forty`: 40 decisions of 4
            options; `noisy`: 12 decisions of 4; `numbers`: `Real` and `Integer`, linear and on a log scale.

    Raises:
        UnknownNameError: at the first step, for another kind.
    """
    values = yield from KINDS[validate_choice("landscape", kind, KINDS)]()
    return Point(values, kind)


Decisions = Generator[Decision, Any, dict[str, Json]]


def _links() -> Decisions:
    values: dict[str, Json] = {}
    for index in range(LAYERS):
        operation, inputs = f"layer{index}/operation", f"layer{index}/inputs"
        values[operation] = yield Choice(operation, OPERATIONS)
        values[inputs] = list((yield Links(inputs, index)))
    return values


def _conditional() -> Decisions:
    family = yield Choice("family", tuple(FAMILIES))
    values: dict[str, Json] = {"family": family}
    for index in range(FAMILIES[family]):
        name = f"{family}{index}"
        values[name] = yield Choice(name, LETTERS, kind=f"of family {family}")
    for index in range(SHARED):
        name = f"shared{index}"
        values[name] = yield Choice(name, OPERATIONS)
    return values


def _choices(count: int) -> Decisions:
    values: dict[str, Json] = {}
    for index in range(count):
        name = f"choice{index}"
        values[name] = yield Choice(name, LETTERS)
    return values


def _numbers() -> Decisions:
    values: dict[str, Json] = {}
    for decision in NUMBERS:
        values[decision.name] = yield decision
    return values


KINDS: Mapping[str, Callable[[], Decisions]] = {
    "links": _links,
    "conditional": _conditional,
    "forty": lambda: _choices(MANY),
    "noisy": lambda: _choices(FEW),
    "numbers": _numbers,
}

PRESETS: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in KINDS}

SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {}
