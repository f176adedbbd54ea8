"""Where a search stands: what the live view, the plain lines and `show` tell people."""

from __future__ import annotations

import dataclasses

from db.records import Child, Search, State
from db.store import Store


@dataclasses.dataclass(frozen=True)
class Standing:
    """Children by state, the best, and the time left in seconds (None where it cannot be told yet)."""

    search: Search
    counts: dict[str, int]
    best: list[Child]
    seconds: float
    seconds_left: float | None

    @property
    def num_trained(self) -> int:
        return self.counts[State.TRAINED]

    @property
    def summary(self) -> str:
        """One line."""
        budget = "" if self.search.budget is None else f"/{self.search.budget}"
        parts = [f"{self.num_trained}{budget} trained"]
        parts += [f"{self.counts[state]} {state}" for state in ("running", "failed", "lost") if self.counts[state]]
        if self.best:
            parts.append(f"best {self.best[0].reward:.4f} (child {self.best[0].number})")
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


class Clerk:
    """Reads a search's standing again and again.

    Args:
        time_limit: seconds that this run may take, or None.
    """

    def __init__(self, store: Store, name: str, *, time_limit: float | None = None) -> None:
        self._store = store
        self._name = name
        self._time_limit = time_limit
        self._before: int | None = None

    def standing(self, seconds: float, best: int = 5) -> Standing:
        """The standing now, `seconds` after the run began."""
        search = self._store.search(self._name)
        counts = self._store.counts(search.id)
        trained = counts[State.TRAINED]
        if self._before is None:
            self._before = trained
        done = trained - self._before
        left = []
        if search.budget is not None and done > 0:
            left.append(max(0, search.budget - trained) * seconds / done)
        if self._time_limit is not None:
            left.append(max(0.0, self._time_limit - seconds))
        return Standing(search, counts, self._store.top(search.id, best), seconds, min(left, default=None))


def duration(seconds: float) -> str:
    """`42s`, `3m05s`, `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def quantity(number: int | None) -> str:
    """`950`, `26.2k`, `1.5M`; `-` for None."""
    if number is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def spec_line(spec: object) -> str:
    """A stored spec in one line, for tables."""
    if isinstance(spec, dict) and isinstance(spec.get("layers"), list):
        return " ".join(_layer(layer) for layer in spec["layers"])
    return str(spec)


def _layer(layer: dict[str, object]) -> str:
    inputs = layer["inputs"]
    assert isinstance(inputs, list | tuple)
    read = ",".join(str(index) for index in inputs) or "image"
    stride = (
        ""
        if layer["stride_height"] == layer["stride_width"] == 1
        else (f"/{layer['stride_height']}x{layer['stride_width']}")
    )
    pool = "p" if layer["pool"] else ""
    return f"{layer['filter_height']}x{layer['filter_width']}x{layer['num_filters']}{stride}{pool}({read})"
