"""Where a search stands and what a child is: what the live view, the plain lines, `show` and `top` tell."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from automl.wording import counted
from db.records import Child, EndingCount, Search, SearchState, State
from db.store import Store
from search_spaces.recurrent_cell.spec import RecurrentCell
from search_spaces.update_rule.spec import UpdateRule

RULE_AND_RATE = ("rule", "learning_rate")  # of a joint child, beside its network
REASONS = {  # why a rule was not trained to its end
    "screened": "ended by the screen",
    "diverged": "diverged",
    "hopeless": "hopeless after the sweep",
}
LATEST = 50  # children that shares of time and the reward curve are taken from
SPARKS = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Standing:
    """Children by state, the best, those running, the latest, and the time left in seconds (None where it cannot be
    told yet). `now` is by the database's clock."""

    search: Search
    counts: dict[str, int]
    best: list[Child]
    running: list[Child]
    latest: list[Child]
    now: float
    seconds: float
    seconds_left: float | None

    @property
    def num_trained(self) -> int:
        return self.counts[State.TRAINED]

    @property
    def workers(self) -> list[str]:
        """What each busy worker does, one line each."""
        lines = []
        for child in self.running:
            since = duration(max(0.0, self.now - (child.started or self.now)))
            doing = f"child {child.number} for {since}, {child.progress} steps"
            lines.append(f"worker {_slot(child)}: {doing}, {spec_line(child.spec)}")
        return lines

    @property
    def phases(self) -> str:
        """Where the latest children's time went, and how often they were traced; empty where none says."""
        told = [child for child in self.latest if child.phases and child.seconds]
        total = sum(child.seconds or 0.0 for child in told)
        if not total:
            return ""
        names = dict.fromkeys(name for child in told for name in child.phases or {})
        shares = {name: sum((child.phases or {}).get(name, 0.0) for child in told) / total for name in names}
        parts = [f"{name} {share:.0%}" for name, share in shares.items()]
        parts.append(f"other {max(0.0, 1.0 - sum(shares.values())):.0%}")
        counts = [(child.metrics or {}).get("traces") for child in told]  # a task of one's own may mean anything by it
        traces = [count for count in counts if isinstance(count, int | float)]
        if traces:
            parts.append(f"{counted(round(sum(traces) / len(traces)), 'trace')} a child")
        return ", ".join(parts)

    @property
    def curve(self) -> str:
        """Rewards of the latest children in number order, as a line of blocks from the lowest to the highest."""
        rewards = [child.reward for child in reversed(self.latest) if child.reward is not None]
        if len(rewards) < 2:
            return ""
        low, high = min(rewards), max(rewards)
        scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
        blocks = "".join(SPARKS[round((reward - low) * scale)] for reward in rewards)
        return f"{blocks}  {figure(low)} to {figure(high)}"

    @property
    def waiting(self) -> str:
        """Why children are ready and not running; empty where none is."""
        ready = self.counts[State.READY]
        if not ready:
            return ""
        state, budget = self.search.state, self.search.budget
        if state not in (SearchState.RUNNING, SearchState.STOPPING):
            reason = f"the search is {state}"
        elif state == SearchState.STOPPING:
            reason = "the search is stopping"
        elif budget is not None and self.num_trained + len(self.running) >= budget:
            reason = f"the budget of {counted(budget, 'child', 'children')} is reached"
        elif self.running:
            are = "is" if len(self.running) == 1 else "are"
            reason = f"{len(self.running)} {are} running and every worker is busy"
        else:
            reason = "no worker is ready yet"
        return f"{ready} ready: {reason}"

    @property
    def summary(self) -> str:
        """One line."""
        budget = "" if self.search.budget is None else f"/{self.search.budget}"
        parts = [f"{self.num_trained}{budget} trained"]
        parts += [f"{self.counts[state]} {state}" for state in ("running", "failed", "lost") if self.counts[state]]
        if self.best:
            parts.append(f"best {figure(self.best[0].reward or 0.0)} (child {self.best[0].number})")
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
        return Standing(
            search,
            counts,
            self._store.top(search.id, best),
            self._store.children(search.id, states=[State.RUNNING]),
            self._store.latest(search.id, LATEST),
            self._store.now(),
            seconds,
            min(left, default=None),
        )


def _slot(child: Child) -> str:
    """The place of a worker among its pool's, out of its name `EPOCH.SLOT.GENERATION`."""
    parts = (child.worker or "?").split(".")
    return parts[1] if len(parts) == 3 else parts[-1]


def early_endings(counts: Sequence[EndingCount]) -> str:
    """How many update rules were not trained to their end and why, and what the screen would have cost; empty where
    none ended early."""
    total = sum(count.count for count in counts)
    by_reason = Counter[str]()
    for count in counts:
        if count.why is not None:
            by_reason[count.why] += count.count
    if not by_reason:
        return ""
    told = [f"{number} {REASONS.get(why, why)} ({number / total:.0%})" for why, number in by_reason.most_common()]
    anyway = [count for count in counts if count.screened and count.why != "screened"]
    if anyway:
        tried, best = sum(count.count for count in anyway), max(count.best or 0.0 for count in anyway)
        told.append(f"{tried} that the screen would have ended were trained, the best to {figure(best)}")
    return f"of {total} trained: " + ", ".join(told)


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


def figure(value: float) -> str:
    """A reward or a metric: four places, or three digits where four places would hide them or be lost among others."""
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1e6 else f"{value:.3g}"


def child_json(child: Child) -> dict[str, Any]:
    """A child as scripts read it."""
    fields = (
        "number",
        "state",
        "fault",
        "message",
        "tokens",
        "spec",
        "reward",
        "metrics",
        "stopped_at",
        "ending",
        "screened",
        "params",
        "flops",
        "seconds",
        "seed",
        "batch",
        "drawn_under",
        "origin",
        "tries",
        "attempts",
        "canonical_hash",
    )
    return {name: getattr(child, name) for name in fields}


def spec_line(spec: object) -> str:
    """A stored spec in one line, for tables."""
    if isinstance(spec, dict) and isinstance(spec.get("layers"), list):
        return " ".join(_layer(layer) for layer in spec["layers"])
    if isinstance(spec, dict) and spec.keys() == {"groups"}:
        return str(UpdateRule(**spec))
    if isinstance(spec, dict) and spec.keys() in ({"net", *RULE_AND_RATE}, {"tree", *RULE_AND_RATE}):
        network = spec_line(spec["net"] if "net" in spec else spec["tree"])
        return f"{network} by {spec_line(spec['rule'])} at {spec['learning_rate']:g}"
    cell = _cell(spec)
    return str(spec) if cell is None else cell.line()


def spec_drawing(spec: object) -> list[str]:
    """A stored spec as lines of a drawing; none where it has no drawing."""
    cell = _cell(spec)
    return [] if cell is None else cell.drawing().splitlines()


def _cell(spec: object) -> RecurrentCell | None:
    if isinstance(spec, dict) and spec.keys() == {"tree", *RULE_AND_RATE}:
        spec = spec["tree"]
    is_cell = isinstance(spec, dict) and spec.keys() == {field.name for field in dataclasses.fields(RecurrentCell)}
    return RecurrentCell(**spec) if is_cell else None  # type: ignore[arg-type]


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
