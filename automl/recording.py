"""Compares the space of a search with its stored children, before the search continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automl.child_trainers.user_files import UserFileError
from automl.db.records import Child, Search
from automl.db.store import Store
from automl.search_spaces.ordering import ChangedError, Ordering
from automl.search_spaces.recorded import (
    Catalogue,
    ChildMismatchError,
    Record,
    child_mismatch,
    decision_to_json,
    decode_recorded,
    difference_of,
)
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_json, spec_to_json


def accepted_order(store: Store, search: Search, space: Space) -> list[dict[str, Any]]:
    """The order of a changed space's options with which every stored child keeps its spec.

    Args:
        space: the space of the changed file.

    Raises:
        UserFileError: there is no such order.
    """
    catalogue = store.decisions(search.id)
    ordering = Ordering()
    for child in store.children(search.id):
        try:
            if child.decisions is None:
                decode_recorded(space, child.tokens, child.spec, None)
            else:
                _match_child(space, child, [catalogue[number] for number in child.decisions], ordering)
        except ValueError as error:
            way_out = "Start a new search with it."
            if child.decisions is None:
                way_out = (
                    "An earlier version of automl did not record the options. Put the old text back and resume once to "
                    "record them, then accept the change; or start a new search with it."
                )
            raise UserFileError(
                f"The changed file makes another child from the tokens of child {child.number}: "
                f"{str(error).rstrip('.')}; the change cannot be accepted. {way_out}"
            ) from None
    return ordering.to_json()


def _match_child(space: Space, child: Child, recorded: Sequence[Record], ordering: Ordering) -> None:
    """Walks the changed space with the options that a stored child chose. Raises ValueError if the specs differ."""
    walk = space.begin()
    rest = tuple(child.tokens)
    for before in recorded:
        decision = walk.decision
        ordering.match(before, decision)
        assert decision is not None
        if "count" in before:
            answer, rest = rest[: before["count"]], rest[before["count"] :]
        else:
            token, rest = rest[0], rest[1:]
            options = [canonical_json(option) for option in decision_to_json(decision)["options"]]
            answer = (options.index(canonical_json(before["options"][token])),)
        walk.answer(answer)
    if walk.decision is not None:
        ordering.match(None, walk.decision)
    if (difference := difference_of(child.spec, spec_to_json(walk.spec))) is not None:
        where, stored, now = difference
        raise ChangedError(f"{where} is {now} where {stored} is recorded")


def newly_recorded(
    store: Store, search: Search, space: Space, catalogue: Catalogue, *, all_children: bool, changed: bool
) -> dict[int, tuple[int, ...]]:
    """The decisions of children for which the store has no decisions or different ones, by the child's number.

    Args:
        catalogue: the decisions of the search; new ones are added to it.
        all_children: also check children whose decisions are recorded.
        changed: the space was changed and accepted, so its decisions replace the recorded ones.

    Raises:
        ValueError: the tokens of a child now make another child.
    """
    new_decisions = {}
    for child in store.children(search.id) if all_children else store.unrecorded(search.id):
        known = None if changed or child.decisions is None else [catalogue.records[n] for n in child.decisions]
        try:
            walk = decode_recorded(space, child.tokens, child.spec, known)
        except ChildMismatchError as error:
            raise ValueError(child_mismatch(child.number, error)) from None
        numbers = catalogue.numbers_of(walk.decisions) if known is None else None
        if numbers is not None and list(numbers) != child.decisions:
            new_decisions[child.number] = numbers
    return new_decisions
