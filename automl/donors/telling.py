"""Tells a controller what its search received from earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from automl.controllers import base
from automl.controllers.base import Controller, DonorChild
from automl.db.records import Donor, StoreError
from automl.donors.receiving import answers_of
from automl.donors.references import FLAG
from automl.search_spaces.space import Space
from automl.search_spaces.transfer import RecordedError, UnfitError, transferred

WHO_LEARN = "surrogate, or reinforce or ppo with a reward model (option candidates above 0)"


def warm_start(controller: Controller, name: str, donors: Sequence[Donor], space: Space, *, flag: str = FLAG) -> None:
    """Tells a new controller what its search received. Does nothing without donors.

    A space of the user's own may have changed since: children that it does not have any more are left out.

    Args:
        name: of the controller, for messages.
        flag: what the user has named the earlier searches with.

    Raises:
        ValueError: the controller does not learn from earlier searches.
        StoreError: the store is damaged.
    """
    if not donors:
        return
    if not controller.accepts_donors:
        raise ValueError(
            f"The controller {name} does not learn from earlier searches; drop {flag}, or choose {WHO_LEARN}."
        )
    told = [base.Donor(donor.name, tuple(_told(donor, space))) for donor in donors]
    controller.warm_start([donor for donor in told if donor.children])


def _told(donor: Donor, space: Space) -> Iterator[DonorChild]:
    """The stored children of a donor, for the controller."""
    if len({len(part) for part in (donor.answered, donor.tokens, donor.rewards, donor.ranks)}) > 1:
        raise _damaged(donor, "its lists differ in length")
    for numbers, tokens, reward, rank in zip(donor.answered, donor.tokens, donor.rewards, donor.ranks, strict=True):
        if not 0 < rank < 1:
            raise _damaged(donor, f"a child has the rank {rank}")
        try:
            yield DonorChild(transferred(space, answers_of(donor.decisions, numbers, tokens)).tokens, reward, rank)
        except UnfitError:  # the user has accepted a change of the space
            continue
        except RecordedError as error:
            raise _damaged(donor, str(error)) from error


def _damaged(donor: Donor, why: str) -> StoreError:
    return StoreError(
        f"What the search received from {donor.name!r} is not as automl writes it: {why}. Restore the store from a "
        "backup, or start a new search."
    )
