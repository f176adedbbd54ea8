"""Detects a changed space: checks a child's tokens against the decisions and the spec that the store records with
them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.numeric import Numeric
from automl.search_spaces.space import Space
from automl.search_spaces.spec import Json, canonical_json, spec_to_json
from automl.search_spaces.walk import Walk

WHY = (
    "A space must yield the same decisions and return the same spec every time: nothing in it may depend on random "
    "numbers, the order of a set, the time or the environment."
)
MAX_SHOWN = 80  # characters of a value in a message
_ABSENT = object()

Record = dict[str, Any]  # a decision as it is stored


class ChildMismatchError(ValueError):
    """The space makes another child of recorded tokens; the message says what differs."""


def child_mismatch(number: int, error: ChildMismatchError) -> str:
    """The message about a child that the space no longer makes."""
    return f"The space no longer makes child {number} from its tokens: {error}. {WHY}"


class UnstableSpaceError(ValueError):
    """A space is not deterministic: the same answers give other decisions or another spec; the message says what
    differs."""


def decision_to_json(decision: Decision) -> Record:
    """A decision as it is stored, without its narrowing.

    Raises:
        ValueError: an option is not a JSON value; the message names the decision.
    """
    if not isinstance(decision, Choice):
        return {"name": decision.name, "kind": decision.kind, "count": decision.count}
    options = [_stored(decision, option) for option in decision.options]
    bounds = decision.bounds if isinstance(decision, Numeric) else {}
    return {"name": decision.name, "kind": decision.kind, "options": options} | bounds


def check_options(decisions: Sequence[Decision]) -> None:
    """Checks the options that a new search will store.

    Raises:
        ValueError: an option cannot be stored, or occurs twice.
    """
    for decision in decisions:
        if not isinstance(decision, Choice):
            continue
        written = [canonical_json(option) for option in decision_to_json(decision)["options"]]
        twice = next((text for index, text in enumerate(written) if text in written[:index]), None)
        if twice is not None:
            raise ValueError(f"The decision {decision.name!r} has the option {twice} twice; leave one out.")


class Catalogue:
    """The different decisions that the children of a search answered, numbered from 0.

    Attributes:
        new: the decisions that are not stored yet, by number.
    """

    def __init__(self, stored: Sequence[Record]) -> None:
        self.records = list(stored)
        self._numbers = {canonical_json(record): number for number, record in enumerate(stored)}
        self.new: dict[int, Record] = {}

    def numbers_of(self, decisions: Sequence[Decision]) -> tuple[int, ...] | None:
        """The numbers of these decisions; None if one of them cannot be stored."""
        try:
            return tuple(self._number(decision_to_json(decision)) for decision in decisions)
        except ValueError:  # in a search of 0.1.0, which stored no options
            return None

    def _number(self, record: Record) -> int:
        text = canonical_json(record)
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.records)
            self.records.append(record)
            self.new[number] = record
        return number

    def taken(self) -> dict[int, Record]:
        """Returns `new`, which the caller must store, and clears it."""
        new, self.new = self.new, {}
        return new


def decode_recorded(space: Space, tokens: Sequence[int], spec: Json, decisions: Sequence[Record] | None) -> Walk:
    """The finished walk of a stored child.

    Args:
        spec: its recorded spec, a JSON value.
        decisions: the recorded decisions that its tokens answered, or None if they were not recorded.

    Raises:
        ChildMismatchError: the space yields other decisions, or returns another spec.
    """
    walk = space.begin()
    rest = tuple(tokens)
    index = 0
    while (decision := walk.decision) is not None:
        if decisions is not None:
            recorded = decisions[index] if index < len(decisions) else None
            asked = decision_to_json(decision)
            if recorded is None or canonical_json(recorded) != canonical_json(asked):
                raise ChildMismatchError(decision_difference(recorded, asked))
        size = decision.num_tokens
        if len(rest) < size:
            raise ChildMismatchError(f"the decision {decision.name!r} has no answer among its tokens")
        try:
            walk.answer(rest[:size])
        except ValueError as error:
            raise ChildMismatchError(str(error).rstrip(".")) from error
        rest = rest[size:]
        index += 1
    if decisions is not None and index < len(decisions):
        raise ChildMismatchError(decision_difference(decisions[index], None))
    if rest:
        raise ChildMismatchError(f"{len(rest)} of its {len(tokens)} tokens are left over after the last decision")
    if (difference := difference_of(spec, spec_to_json(walk.spec))) is not None:
        where, before, now = difference
        raise ChildMismatchError(f"{where} is {now} where {before} is recorded")
    return walk


def surveyed(space: Space) -> list[Record]:
    """The walks of `Space.survey` as JSON, for comparison with those of another call or process.

    Raises:
        ValueError: an option or a spec is not a JSON value.
    """
    return [
        {"decisions": [decision_to_json(decision) for decision in walk.decisions], "spec": spec_to_json(walk.spec)}
        for walk in space.survey()
    ]


def check_same_survey(first: Sequence[Record], second: Sequence[Record]) -> None:
    """Compares two surveys of one space (`surveyed`).

    Raises:
        UnstableSpaceError: they differ; the message names the decision, or the part of the spec.
    """
    for one, other in zip(first, second, strict=True):
        for decision, other_decision in itertools.zip_longest(one["decisions"], other["decisions"]):
            if canonical_json(decision) != canonical_json(other_decision):
                raise UnstableSpaceError(
                    f"The space is not the same every time: {decision_difference(decision, other_decision)}. {WHY}"
                )
        if (difference := difference_of(one["spec"], other["spec"])) is not None:
            where, before, now = difference
            raise UnstableSpaceError(
                f"The space is not the same every time: for the same answers, {where} is {before} once and {now} the "
                f"next time. {WHY}"
            )


def decision_difference(was: Record | None, now: Record | None) -> str:
    """Describes how two stored decisions at one position differ; None stands for no decision."""
    if was is None or now is None:
        asked, words = (now, "is new") if was is None else (was, "is no longer there")
        return f"the decision {(asked or {}).get('name')!r} {words}"
    name = was["name"]
    if name != now["name"]:
        return f"there is the decision {now['name']!r} where {name!r} was"
    if _type_text(was) != _type_text(now):
        return f"the decision {name!r} is {_type_text(now)} where it was {_type_text(was)}"
    if "count" in was and was["count"] != now["count"]:
        return f"the decision {name!r} has {now['count']} layers before it where it had {was['count']}"
    if "options" in was and canonical_json(was["options"]) != canonical_json(now["options"]):
        return f"the decision {name!r} has the options {_listed(now)} where it had {_listed(was)}"
    if was.get("log") != now.get("log"):
        return f"the decision {name!r} is {'' if now['log'] else 'no longer '}on a log scale"
    return f"the decision {name!r} is of the kind {now['kind']!r} where it was of {was['kind']!r}"


def difference_of(was: Any, now: Any) -> tuple[str, str, str] | None:
    """The first part in which two specs differ, with its old and its new value; None if they are equal."""
    difference = _first_difference(was, now, "")
    if difference is None:
        return None
    path, before, after = difference
    return (f"{path.lstrip('.')!r} in the spec" if path else "the spec"), _short(before), _short(after)


def _first_difference(was: Any, now: Any, path: str) -> tuple[str, Any, Any] | None:
    if canonical_json(was) == canonical_json(now):
        return None
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            one, other = was.get(key, _ABSENT), now.get(key, _ABSENT)
            if _ABSENT in (one, other):
                return f"{path}.{key}", one, other
            if (difference := _first_difference(one, other, f"{path}.{key}")) is not None:
                return difference
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (one, other) in enumerate(zip(was, now, strict=True)):
            if (difference := _first_difference(one, other, f"{path}[{index}]")) is not None:
                return difference
    return path, was, now


def _stored(decision: Choice, option: Any) -> Any:
    try:
        return json.loads(json.dumps(option, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(
            f"The decision {decision.name!r} has the option {option!r} ({type(option).__name__}), which cannot be "
            "stored; options are texts, finite numbers, true, false, None, or lists of them: name what you mean, and "
            "look it up by its name."
        ) from None


def _type_text(decision: Record) -> str:
    if "options" not in decision:
        return "a set of links"
    return {"integer": "an integer", "real": "a real number", "ordinal": "an ordinal"}.get(
        decision.get("type", ""), "a choice"
    )


def _listed(decision: Record) -> str:
    return _short(decision["options"])


def _short(value: Any) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
