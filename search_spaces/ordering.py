"""Keeps the tokens of a user's space after its file has changed: old options keep theirs, and new options follow."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.recorded import Record, decision_difference, decision_to_json
from automl.search_spaces.spec import canonical_json


class ChangedError(ValueError):
    """A changed decision is not compatible with the recorded one; the message says why."""


@dataclasses.dataclass(frozen=True)
class Order:
    """The order of a choice's options in the changed space.

    Attributes:
        asked: the choice as the changed space yields it.
        kind: the choice's old kind, which the controller uses.
        options: the old options, then the new ones.
    """

    asked: Record
    kind: str
    options: list[Any]

    def applied(self, decision: Choice) -> Choice:
        places = [canonical_json(option) for option in self.asked["options"]]
        options = tuple(decision.options[places.index(canonical_json(option))] for option in self.options)
        return dataclasses.replace(decision, options=options, kind=self.kind)


class Ordering:
    """The orders of a space's choices. A choice whose name has no order gets the order of its kind and options."""

    def __init__(self, orders: Sequence[Order] = ()) -> None:
        self._of_name: dict[str, Order] = {}
        self._of_kind: dict[str, Order | None] = {}  # None if the orders of a kind differ
        for order in orders:
            self._keep(order)

    @classmethod
    def from_json(cls, stored: Sequence[dict[str, Any]]) -> Ordering:
        return cls([Order(**order) for order in stored])

    def to_json(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(order) for order in self._of_name.values()]

    def match(self, was: Record | None, now: Decision | None) -> None:
        """Records the order by which the decision `now` of the changed space replaces the recorded one.

        Raises:
            ChangedError: the two are not compatible.
        """
        asked = None if now is None else decision_to_json(now)
        if was is None or asked is None or was["name"] != asked["name"] or ("options" in was) != ("options" in asked):
            raise ChangedError(decision_difference(was, asked))
        if "count" in was:
            if was != asked:
                raise ChangedError(decision_difference(was, asked))
            return
        name = was["name"]
        old, new = ([canonical_json(option) for option in record["options"]] for record in (was, asked))
        if missing := [text for text in old if text not in new]:
            raise ChangedError(f"the decision {name!r} no longer has the option {missing[0]}")
        if old != new and (len(set(old)) < len(old) or len(set(new)) < len(new)):
            raise ChangedError(f"the decision {name!r} has an option twice, so their order cannot be determined")
        if was["kind"] != asked["kind"] and not (_is_default(was) and _is_default(asked)):
            raise ChangedError(decision_difference({**was, "options": asked["options"]}, asked))
        added = [option for option, text in zip(asked["options"], new, strict=True) if text not in old]
        order = Order(asked, was["kind"], [*was["options"], *added])
        before = self._of_name.get(_key(asked))
        if before is not None and before != order:
            raise ChangedError(f"the decision {name!r} had two different forms, and now has only one")
        self._keep(order)

    def apply(self, decision: Decision) -> Decision:
        """The decision with its options in the recorded order."""
        if not isinstance(decision, Choice):
            return decision
        asked = decision_to_json(decision)
        order = self._of_name.get(_key(asked)) or self._of_kind.get(_key(asked, named=False))
        return decision if order is None else order.applied(decision)

    def _keep(self, order: Order) -> None:
        self._of_name[_key(order.asked)] = order
        key = _key(order.asked, named=False)
        same = self._of_kind.setdefault(key, order)
        if same is not None and (same.kind, same.options) != (order.kind, order.options):
            self._of_kind[key] = None


def ordered(function: Callable[[], Any], ordering: Ordering) -> Callable[[], Any]:
    """The space of `function`, with its options in the recorded order."""

    def space() -> Any:
        generator = function()
        return _ordered(generator, ordering) if isinstance(generator, Generator) else generator

    return space


def _ordered(generator: Generator[Decision, Any, Any], ordering: Ordering) -> Generator[Decision, Any, Any]:
    value = None
    while True:
        try:
            decision = generator.send(value)
        except StopIteration as stop:
            return stop.value
        value = yield ordering.apply(decision)


def _key(asked: Record, *, named: bool = True) -> str:
    return canonical_json([asked["name"] if named else "", asked["kind"], asked["options"]])


def _is_default(record: Record) -> bool:
    """Whether a choice has the default kind: its name without digits, and its options."""
    return bool(re.fullmatch(re.escape(re.sub(r"\d+", "", record["name"])) + r"\[.*\]", record["kind"], re.DOTALL))
