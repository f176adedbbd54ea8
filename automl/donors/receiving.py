"""Finds the children of an earlier search in the space of a new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from automl.db.records import Child, Donor, StoreError
from automl.donors.reading import Offer, best_and_spread
from automl.search_spaces.recorded import Catalogue, ChildMismatchError, Record, decode_recorded
from automl.search_spaces.space import Space
from automl.search_spaces.transfer import RecordedError, UnfitError, recorded_answers, transferred
from automl.search_spaces.walk import Walk

MAX_RECEIVED = 200  # of the children that fit: the best half, and as many spread over the ranks of the rest


def received(offer: Offer, space: Space) -> Donor:
    """What a search of this space receives.

    Raises:
        StoreError: a child is not as automl writes it.
        ValueError: the space has none of the children; the message says why.
    """
    fitting: list[tuple[int, Walk]] = []
    reasons = Counter[str]()
    for place, child in enumerate(offer.children):
        try:
            fitting.append((place, _walk_of(offer, child, space)))
        except UnfitError as error:
            reasons[str(error)] += 1
        except RecordedError as error:
            raise StoreError(
                f"{offer.reference.flag}: child {child.number} of {offer.name!r} in {offer.store} is not as automl "
                f"writes it: {error}; restore that store from a backup, or drop it."
            ) from error
    tried = len(offer.children)
    if not fitting:
        ((reason, count),) = reasons.most_common(1)
        raise ValueError(
            f"{offer.reference.flag}: this space has no child of the search {offer.name!r}: {reason} ({count} of "
            f"{tried} trained children); name a search of the same or an overlapping space."
        )
    catalogue = Catalogue([])
    kept = best_and_spread(fitting, MAX_RECEIVED)
    return Donor(
        name=offer.name,
        store=offer.store,
        space=offer.space,
        task=offer.task,
        trained=offer.trained,
        tried=tried,
        fitting=len(fitting),
        answered=[list(catalogue.numbers_of(walk.decisions) or ()) for _, walk in kept],
        decisions=catalogue.records,
        tokens=[list(walk.tokens) for _, walk in kept],
        rewards=[offer.rewards[place] for place, _ in kept],
        ranks=[offer.ranks[place] for place, _ in kept],
    )


def answers_of(decisions: Sequence[Record], numbers: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
    """The answers of a child by name of the decision.

    Args:
        numbers: indices of the child's decisions.

    Raises:
        RecordedError: the records do not belong together.
    """
    if not all(0 <= number < len(decisions) for number in numbers):
        raise RecordedError("a child answers a decision that is not recorded")
    return recorded_answers([decisions[number] for number in numbers], tokens)


def _walk_of(offer: Offer, child: Child, space: Space) -> Walk:
    """The same child in the space. Raises UnfitError, RecordedError."""
    try:
        if child.decisions is not None:
            return transferred(space, answers_of(offer.decisions, child.decisions, child.tokens))
        # automl 0.1.0 recorded no decisions, but a space that makes the same spec from the tokens has the child.
        return decode_recorded(space, child.tokens, child.spec, None)
    except ChildMismatchError as error:
        raise UnfitError(f"{error}, and that search was run by automl 0.1.0, which recorded no decisions") from error
    except RecursionError:
        raise RecordedError("a value is nested too deeply") from None
