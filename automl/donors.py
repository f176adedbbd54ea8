"""Earlier searches whose children a new search receives (`--warm-start`): finds them, and translates their children."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from automl.controllers import base
from automl.controllers.base import DONOR_WEIGHTS, Controller, DonorChild
from automl.controllers.ranks import rank_shares
from automl.db.records import Child, Donor, State, Step, StoreError, is_search_name
from automl.paths import open_store, store_address
from automl.search_spaces.recorded import Catalogue, Record
from automl.search_spaces.space import Space
from automl.search_spaces.transfer import RecordedError, UnfitError, recorded_answers, transferred
from automl.search_spaces.walk import Walk

Item = TypeVar("Item")
MAX_TRIED = 2_000  # of the trained children of a donor: the best half, and as many spread over the ranks of the rest
MAX_RECEIVED = 200  # of those that fit, chosen in the same way
WHO_LEARN = "surrogate, or reinforce or ppo with --set controller.candidates=256"


@dataclasses.dataclass(frozen=True)
class Offer:
    """The trained children of an earlier search, as its store has them.

    Attributes:
        name, store, space, task: as of `Donor`.
        decisions: the search's decisions.
        children: in order of their rewards, the best first.
        place: of the store, the same for all addresses of it.
    """

    name: str
    store: str
    space: str
    task: str
    decisions: Sequence[Record]
    children: Sequence[Child]
    place: str


def read_offers(references: Sequence[str], own_store: str) -> list[Offer]:
    """Reads the earlier searches that a user names.

    Args:
        references: `SEARCH` or `SEARCH@STORE`. No name of a search has an `@`, but the address of a store may.
        own_store: address of the new search's store, which has the searches that are named without a store.

    Raises:
        StoreError: there is no such store or search.
        ValueError: a reference has another form or is there twice, or a search has no trained child.
    """
    offers = []
    for reference in references:
        name, at, address = reference.partition("@")
        if not is_search_name(name) or (at and not address.strip()):
            raise ValueError(
                f"--warm-start {name + at!r} is not of the form SEARCH or SEARCH@STORE, where STORE is a file or a "
                "database URL, for example first@old.db."
            )
        offers.append(_read_offer(name, store_address(address) if at else own_store))
        if (name, offers[-1].place) in [(other.name, other.place) for other in offers[:-1]]:
            raise ValueError(f"--warm-start names the search {name!r} of {offers[-1].store} twice; name it once.")
    return offers


def _read_offer(name: str, address: str) -> Offer:
    if "://" not in address and not os.path.exists(os.path.expanduser(address)):
        raise StoreError(
            f"--warm-start cannot read the search {name!r}: there is no store {address}; write SEARCH@STORE with the "
            "file of its store."
        )
    try:
        with contextlib.closing(open_store(address)) as store:
            search = store.search(name)
            children = store.children(search.id, states=[State.TRAINED])
            decisions = store.decisions(search.id)
            option = store.option
            of_store, place = str(store), str(store if store.file is None else store.file.resolve())
    except StoreError as error:
        raise StoreError(f"--warm-start cannot read the search {name!r}: {error}") from error
    if not children:
        raise ValueError(
            f"The search {name!r} in {of_store} has no trained child to learn from; drop --warm-start {name}, or train "
            "some first."
        )
    recorded = [child for child in children if child.decisions is not None]
    if not recorded:
        raise ValueError(
            f"The search {name!r} in {of_store} is of automl 0.1.0, which did not record the decisions of its "
            f"children; automl resume {name} {option} records them."
        )
    ranked = sorted(recorded, key=lambda child: (-(child.reward or 0.0), child.number))
    return Offer(name, of_store, search.space, search.task, decisions, ranked, place)


def received(offer: Offer, space: Space) -> Donor:
    """What a search of this space receives.

    Raises:
        ValueError: the space has none of the children; the message says why.
    """
    ranks = rank_shares([child.reward or 0.0 for child in offer.children]).tolist()
    tried = _best_and_spread(range(len(offer.children)), MAX_TRIED)
    fitting: list[tuple[int, Walk]] = []
    reasons = Counter[str]()
    for place in tried:
        child = offer.children[place]
        try:
            answers = _answers(offer.decisions, child.decisions or (), child.tokens)
            fitting.append((place, transferred(space, answers)))
        except UnfitError as error:
            reasons[str(error)] += 1
        except RecordedError as error:
            raise StoreError(
                f"--warm-start: child {child.number} of {offer.name!r} in {offer.store} is not as automl writes it: "
                f"{error}; restore that store from a backup, or drop it."
            ) from error
    if not fitting:
        ((reason, count),) = reasons.most_common(1)
        raise ValueError(
            f"--warm-start: this space has no child of the search {offer.name!r}: {reason} ({count} of {len(tried)} "
            "trained children); name a search of the same or an overlapping space."
        )
    catalogue = Catalogue([])
    kept = _best_and_spread(fitting, MAX_RECEIVED)
    return Donor(
        name=offer.name,
        store=offer.store,
        space=offer.space,
        task=offer.task,
        trained=len(offer.children),
        tried=len(tried),
        fitting=len(fitting),
        answered=[list(catalogue.numbers_of(walk.decisions) or ()) for _, walk in kept],
        decisions=catalogue.records,
        tokens=[list(walk.tokens) for _, walk in kept],
        rewards=[float(offer.children[place].reward or 0.0) for place, _ in kept],
        ranks=[ranks[place] for place, _ in kept],
    )


def warm_start(controller: Controller, name: str, donors: Sequence[Donor], space: Space) -> None:
    """Tells a new controller what its search received. Does nothing without donors.

    A space of the user's own may have changed since: children that it does not have any more are left out.

    Args:
        name: of the controller, for the message.

    Raises:
        ValueError: the controller does not learn from earlier searches.
        StoreError: the store is damaged.
    """
    if not donors:
        return
    if not controller.accepts_donors:
        raise ValueError(
            f"The controller {name} does not learn from earlier searches; drop --warm-start, or choose {WHO_LEARN}."
        )
    told = [base.Donor(donor.name, tuple(_told(donor, space))) for donor in donors]
    controller.warm_start([donor for donor in told if donor.children])


def weights_of(step: Step | None, donors: Sequence[Donor]) -> list[float | None]:
    """How far a controller trusted each donor after a step, None where it does not say so."""
    found = None if step is None else step.stats.get(DONOR_WEIGHTS)
    if not (isinstance(found, list) and len(found) == len(donors) and all(type(one) in (int, float) for one in found)):
        return [None] * len(donors)
    return found


def donor_line(donor: Donor, weight: float | None = None) -> str:
    """What a search received, for the user.

    Args:
        weight: how far the donor is trusted at present, if that is known.
    """
    tried = f"all {donor.tried}" if donor.fitting == donor.tried else f"{donor.fitting} of {donor.tried}"
    of = "" if donor.tried == donor.trained else f" (of {donor.trained})"
    trust = "" if weight is None else f", weight {weight:.2f}"
    verb = "fits" if donor.fitting == 1 else "fit"
    return (
        f"{donor.name} in {donor.store} ({donor.space}, {donor.task}): {tried} trained "
        f"{'child' if donor.tried == 1 else 'children'}{of} {verb} this space, {len(donor.tokens)} received{trust}"
    )


def donor_json(donor: Donor, weight: float | None) -> dict[str, Any]:
    """What a search received, for scripts, without the children."""
    named = ("name", "store", "space", "task", "trained", "tried", "fitting")
    return {key: getattr(donor, key) for key in named} | {"received": len(donor.tokens), "weight": weight}


def _told(donor: Donor, space: Space) -> Iterator[DonorChild]:
    """The stored children of a donor, for the controller."""
    if len({len(part) for part in (donor.answered, donor.tokens, donor.rewards, donor.ranks)}) > 1:
        raise _damaged(donor, "its lists differ in length")
    for numbers, tokens, reward, rank in zip(donor.answered, donor.tokens, donor.rewards, donor.ranks, strict=True):
        if not 0 < rank < 1:
            raise _damaged(donor, f"a child has the rank {rank}")
        try:
            yield DonorChild(transferred(space, _answers(donor.decisions, numbers, tokens)).tokens, reward, rank)
        except UnfitError:  # the user has accepted a change of the space
            continue
        except RecordedError as error:
            raise _damaged(donor, str(error)) from error


def _damaged(donor: Donor, why: str) -> StoreError:
    return StoreError(
        f"What the search received from {donor.name!r} is not as automl writes it: {why}. Restore the store from a "
        "backup, or start a new search."
    )


def _answers(decisions: Sequence[Record], numbers: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
    """The answers of a child by name of the decision. Raises RecordedError."""
    if not all(0 <= number < len(decisions) for number in numbers):
        raise RecordedError("a child answers a decision that is not recorded")
    return recorded_answers([decisions[number] for number in numbers], tokens)


def _best_and_spread(ranked: Sequence[Item], most: int) -> list[Item]:
    """All items, or `most`: the best half, and others spread evenly over the rest."""
    if len(ranked) <= most:
        return list(ranked)
    best = most // 2
    places = np.linspace(best, len(ranked) - 1, most - best).round().astype(int)
    return [*ranked[:best], *(ranked[place] for place in places.tolist())]
