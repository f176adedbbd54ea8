"""What a search received from earlier ones, for the user."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from automl.controllers.base import DONOR_WEIGHTS
from automl.db.records import Donor, Step
from automl.search_spaces.spec import canonical_json
from automl.wording import counted


def weights_of(step: Step | None, donors: Sequence[Donor]) -> list[float | None]:
    """How far a controller trusted each donor after a step, None where it does not say so."""
    found = None if step is None else step.stats.get(DONOR_WEIGHTS)
    if not (isinstance(found, list) and len(found) == len(donors) and all(type(one) in (int, float) for one in found)):
        return [None] * len(donors)
    return found


def donor_line(donor: Donor, weight: float | None = None) -> str:
    """What a search received, in one line.

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


def donor_identity(donor: Donor) -> str:
    """Name and content of what a search received, in a line. It does not depend on where the store was."""
    content = dataclasses.asdict(dataclasses.replace(donor, store=""))
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return f"{donor.name} ({counted(len(donor.tokens), 'child', 'children')}, sha256 {digest[:12]})"


def donor_json(donor: Donor, weight: float | None) -> dict[str, Any]:
    """What a search received, for scripts, without the children."""
    named = ("name", "store", "space", "task", "trained", "tried", "fitting")
    return {key: getattr(donor, key) for key in named} | {"received": len(donor.tokens), "weight": weight}
