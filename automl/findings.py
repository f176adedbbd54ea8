"""The result of one check of `automl doctor`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check. `advice` says what to do if `well` is False."""

    subject: str
    well: bool
    found: str
    advice: str | None = None
