"""Reads the trained children of earlier searches from their stores. A store may be damaged, or of a stranger."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from automl.controllers.ranks import rank_shares
from automl.db.records import Child, StoreError
from automl.db.store import Store
from automl.donors.references import Reference, reading_errors
from automl.paths import open_store
from automl.search_spaces.recorded import Record
from automl.search_spaces.spec import printable

Item = TypeVar("Item")
MAX_TRAINED = 1_000_000  # whose rewards are read
MAX_TRIED = 2_000  # of these: the best half, and as many spread over the ranks of the rest
MAX_NAME = 100  # characters of a name from another store


@dataclasses.dataclass(frozen=True)
class Offer:
    """Trained children of an earlier search, as its store has them.

    Attributes:
        reference: what the user has named.
        store, space, task, trained: as of `Donor`.
        decisions: the search's decisions.
        children: those that are tried, in order of their rewards, the best first.
        rewards: theirs.
        ranks: theirs among all trained children of the search, as of `Donor`.
    """

    reference: Reference
    store: str
    space: str
    task: str
    trained: int
    decisions: Sequence[Record]
    children: Sequence[Child]
    rewards: Sequence[float]
    ranks: Sequence[float]

    @property
    def name(self) -> str:
        return self.reference.name


def read_offers(references: Sequence[Reference]) -> list[Offer]:
    """Reads the earlier searches.

    Raises:
        StoreError: a store cannot be read, is damaged, or lacks the search.
        ValueError: a search has no trained child.
    """
    return [_read_offer(reference) for reference in references]


def _read_offer(reference: Reference) -> Offer:
    name = reference.name
    with reading_errors(reference.flag, name), contextlib.closing(open_store(reference.address)) as store:
        try:
            return _offer_of(store, reference)
        except RecursionError:
            raise StoreError(
                f"{store} holds a value that is nested too deeply; restore it from a backup, or drop the search."
            ) from None


def _offer_of(store: Store, reference: Reference) -> Offer:
    search = store.search(reference.name)
    trained = store.ranked(search.id, most=MAX_TRAINED + 1)
    if not trained:
        raise ValueError(
            f"The search {reference.name!r} in {store} has no trained child to learn from; leave it out of "
            f"{reference.flag}, or train some first."
        )
    if len(trained) > MAX_TRAINED:
        raise StoreError(f"it has more than {MAX_TRAINED:,} trained children; name a smaller search.")
    ranks = rank_shares([one.reward for one in trained])
    tried = best_and_spread(range(len(trained)), MAX_TRIED)
    children = {child.number: child for child in store.numbered(search.id, [trained[place].number for place in tried])}
    if len(children) < len(tried):
        raise StoreError(f"{store} was written while it was read; try again.")
    return Offer(
        reference,
        str(store),
        _plain(search.space),
        _plain(search.task),
        len(trained),
        store.decisions(search.id),
        [children[trained[place].number] for place in tried],
        [trained[place].reward for place in tried],
        [float(ranks[place]) for place in tried],
    )


def best_and_spread(ranked: Sequence[Item], most: int) -> list[Item]:
    """All items, or `most`: the best half, and others spread evenly over the rest."""
    if len(ranked) <= most:
        return list(ranked)
    best = most // 2
    places = np.linspace(best, len(ranked) - 1, most - best).round().astype(int)
    return [*ranked[:best], *(ranked[place] for place in places.tolist())]


def _plain(text: str) -> str:
    """A name from another store as it is shown and recorded: short, in one line, without control characters."""
    return text[:MAX_NAME] if text.isascii() and text.isprintable() else printable(text[:MAX_NAME])
