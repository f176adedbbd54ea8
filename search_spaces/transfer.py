"""Finds the child of a space that answers its decisions as a recorded child of another space did."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.numeric import Numeric
from automl.search_spaces.recorded import Record, decision_to_json
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_json
from automl.search_spaces.walk import Walk


class UnfitError(ValueError):
    """A space has no child with these answers; the message says why, `there` for the other space."""


class RecordedError(ValueError):
    """Recorded decisions and tokens do not belong together; the message says why."""


class Linked(NamedTuple):
    """The answer to a `Links`.

    Attributes:
        layers: names of the earlier `Links` of its kind, oldest first.
        chosen: those that it links to.
    """

    layers: tuple[str, ...]
    chosen: frozenset[str]


def recorded_answers(decisions: Sequence[Record], tokens: Sequence[int]) -> dict[str, Any]:
    """The answers of a recorded child by name of the decision: an option, or a `Linked`.

    Raises:
        RecordedError: the records are not of the form that automl writes, or do not fit the tokens.
    """
    answers: dict[str, Any] = {}
    layers: dict[str, list[str]] = {}
    rest = list(tokens)
    for record in decisions:
        fields = record if isinstance(record, dict) else {}
        name, kind, options, count = (fields.get(key) for key in ("name", "kind", "options", "count"))
        if not isinstance(name, str) or not isinstance(kind, str) or name in answers:
            raise RecordedError("a recorded decision has no name of its own, or no kind")
        if isinstance(options, list):
            if not rest or not 0 <= rest[0] < len(options):
                raise RecordedError(f"the decision {_shown(name)} has no answer among the tokens")
            answers[name] = options[rest.pop(0)]
            continue
        before = layers.setdefault(kind, [])
        if count != len(before) or len(rest) < len(before):
            raise RecordedError(f"the links {_shown(name)} have no answer among the tokens")
        bits, rest = rest[: len(before)], rest[len(before) :]
        if not set(bits) <= {0, 1}:
            raise RecordedError(f"the links {_shown(name)} have an answer other than 0 and 1")
        chosen = frozenset(layer for layer, bit in zip(before, bits, strict=True) if bit)
        answers[name] = Linked(tuple(before), chosen)
        before.append(name)
    if rest:
        raise RecordedError(f"{len(rest)} tokens are left over after the last decision")
    return answers


def transferred(space: Space, answers: dict[str, Any]) -> Walk:
    """The finished walk of the child that has these answers. Decisions of the other space that this one does not ask
    are ignored. A decision that has no answer must have one possible option.

    Args:
        answers: of `recorded_answers`.

    Raises:
        UnfitError: there is no such child.
    """
    walk = space.begin()
    layers: dict[str, list[str]] = {}
    while (decision := walk.decision) is not None:
        before = layers.setdefault(decision.kind, []) if isinstance(decision, Links) else []
        walk.answer(_answer(space, decision, tuple(before), answers))
        before.append(decision.name)
    return walk


def _answer(space: Space, decision: Decision, before: tuple[str, ...], answers: dict[str, Any]) -> tuple[int, ...]:
    name = decision.name
    if name not in answers:
        return _only_answer(space, decision)
    given = answers[name]
    if isinstance(decision, Choice):
        if isinstance(given, Linked):
            raise UnfitError(f"the decision {name!r} is a set of links there")
        token = _token(decision, given)
        if token is None:
            raise UnfitError(f"the decision {name!r} cannot be {_shown(given)} here")
        return (token,)
    if not isinstance(given, Linked):
        raise UnfitError(f"the decision {name!r} is no set of links there")
    if given.layers != before:
        raise UnfitError(f"the links {name!r} have other layers before them there")
    return tuple(int(layer in given.chosen) for layer in before)


def _token(decision: Choice, value: Any) -> int | None:
    """The token of an option of this value; None if there is none."""
    if isinstance(decision, Numeric):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return decision.token_of(value)
        except (ValueError, OverflowError):  # OverflowError: a whole number above all floats
            return None
    texts = [canonical_json(option) for option in decision_to_json(decision)["options"]]
    text = canonical_json(value)
    return texts.index(text) if text in texts else None


def _shown(value: Any) -> str:
    """A value of the other space, which may be a stranger's: short, and without control characters."""
    return reprlib.repr(value)


def _only_answer(space: Space, decision: Decision) -> tuple[int, ...]:
    forced = space.narrowing(decision).forced
    if any(token is None for token in forced):
        raise UnfitError(f"the decision {decision.name!r} has no answer there")
    return tuple(token for token in forced if token is not None)
