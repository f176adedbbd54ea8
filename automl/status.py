"""Where a search stands and what a child is: what the live view, the plain lines, `show` and `top` tell."""

from __future__ import annotations

import dataclasses
import json
import logging
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automl.db.records import Child, EndingCount, FailureCount, Search, SearchState, Segment, State, Training
from automl.db.store import Store
from automl.estimate import Plan, ReadyChild, RunningChild, TrainedChild, seconds_left
from automl.search_spaces.recurrent_cell.spec import RecurrentCell
from automl.search_spaces.update_rule.spec import UpdateRule
from automl.wording import counted

logger = logging.getLogger(__name__)
REASONS = {  # why a rule was not trained to its end
    "screened": "ended by the screen",
    "diverged": "diverged",
    "hopeless": "hopeless after the sweep",
}
CAUSES = {  # of failed and lost children, by fault; for `raised` the exception itself is shown
    "diverged": "diverged",
    "oom": "out of memory",
    "timeout": "out of time",
    "crashed": "worker crashed",
    "node_lost": "machine lost",
    "store_lost": "store lost",
}
INTERRUPTED = "interrupted"  # shown for a search that runs by its row, but whose process is gone
PREPARED = "prepared_seconds"  # in a segment's `machine`: seconds from the start of the command to the segment
LONGEST_CAUSE = 160  # characters
LATEST = 50  # children that shares of time and the reward curve are taken from
SPARKS = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Standing:
    """Children by state, the best, those running, the latest, and the time left in seconds (None where it cannot be
    estimated yet). `now` is by the database's clock. `interrupted`: its process is gone, and its running children still
    have that state in the store."""

    search: Search
    counts: dict[str, int]
    best: list[Child]
    running: list[Child]
    latest: list[Child]
    now: float
    seconds: float
    seconds_left: float | None
    slots: Mapping[int, int] = dataclasses.field(default_factory=dict)  # of the running children's workers, by child
    interrupted: bool = False

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
            worker = self.slots.get(child.number, child.worker or "?")
            lines.append(f"worker {worker}: {doing}, {spec_line(child.spec, self.search.space)}")
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
        counts = [(child.metrics or {}).get("traces") for child in told]  # a user's task may use the name for anything
        traces = [count for count in counts if isinstance(count, int | float)]
        if traces:
            parts.append(f"{counted(round(sum(traces) / len(traces)), 'trace')} a child")
        return ", ".join(parts)

    @property
    def ignoring(self) -> str:
        """How many of the latest children ignore their input; empty where none does."""
        count = sum(ignores_input(child) for child in self.latest)
        if not count:
            return ""
        of = f"{count} of the latest {counted(len(self.latest), 'child', 'children')}"
        return f"{of} ignore their input, because their state decays to 0: they predict word frequencies alone"

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
        if self.interrupted:
            reason = "the search was interrupted"
        elif state not in (SearchState.RUNNING, SearchState.STOPPING):
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
        words = {"running": INTERRUPTED if self.interrupted else "running", "failed": "failed", "lost": "lost"}
        parts += [f"{self.counts[state]} {word}" for state, word in words.items() if self.counts[state]]
        if self.best:
            parts.append(f"best {best_text(self.best[0], self.search)} (child {self.best[0].number})")
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


class Clerk:
    """Reads the status of a search repeatedly, from the store alone, so that every view shows the same."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def standing(self, best: int = 5) -> Standing:
        store = self._store
        search = store.search(self._name)
        interrupted = is_interrupted(store, search)
        counts = store.counts(search.id)
        running = store.children(search.id, states=[State.RUNNING])
        latest = store.latest(search.id, LATEST)
        now = store.now()
        seconds, left = 0.0, None
        segment = store.last_segment(search.id)
        if segment is not None and segment.ended is None and not interrupted:
            prepared = segment.machine.get(PREPARED)
            began = segment.started - (prepared if isinstance(prepared, float) else 0.0)
            seconds = max(0.0, now - began)
            upcoming = store.upcoming(search.id, LATEST) if search.budget is not None else []
            left = _seconds_left(search, segment, counts, running, latest, upcoming, now, began)
        return Standing(
            search,
            counts,
            store.top(search.id, best),
            running,
            latest,
            now,
            seconds,
            left,
            slots={run.number: run.slot for run in store.running(search.id) if run.slot is not None},
            interrupted=interrupted,
        )


def _seconds_left(
    search: Search,
    segment: Segment,
    counts: dict[str, int],
    running: Sequence[Child],
    latest: Sequence[Child],
    upcoming: Sequence[tuple[int, int, int | None]],
    now: float,
    began: float,
) -> float | None:
    """Seconds until the budget is trained or the time is over, whichever comes first; None where it is unknown."""
    left = []
    if search.budget is not None:
        failed = counts[State.FAILED] + counts[State.LOST]
        together = Counter(child.population for child in [*running, *latest] if child.population is not None)
        needed = seconds_left(
            [
                TrainedChild(child.seconds, child.flops, child.worker, child.finished)
                for child in latest
                if child.seconds is not None and child.finished is not None
            ],
            [
                RunningChild(child.number, child.batch, child.flops, child.worker, child.started or now)
                for child in running
            ],
            [ReadyChild(*child) for child in upcoming],
            wanted=search.budget - counts[State.TRAINED],
            proposed=sum(counts.values()),
            failures=failed / max(1, failed + counts[State.TRAINED]),
            plan=Plan(max(1, segment.workers), search.batch_size, search.replicas, max(together.values(), default=1)),
            now=now,
            since=segment.started,
        )
        left += [] if needed is None else [needed]
    if segment.time is not None:
        left.append(max(0.0, began + segment.time - now))
    return min(left, default=None)


def is_interrupted(store: Store, search: Search) -> bool:
    """Whether the process that ran a search is gone without having ended it, judged as for the lease."""
    runs = (SearchState.RUNNING, SearchState.STOPPING)
    if search.state not in runs or store.is_held(search.name):
        return False
    return store.search(search.name).state in runs  # it may have ended normally between the two reads


def shown_state(store: Store, search: Search) -> str:
    """The search's state as it is shown to the user."""
    return INTERRUPTED if is_interrupted(store, search) else search.state


def ignores_input(child: Child) -> bool:
    """Whether a child's predictions do not depend on its input (a metric of language models)."""
    return (child.metrics or {}).get("ignores_input") is True


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


def failures_text(failures: Sequence[FailureCount]) -> str:
    """How many children failed or were lost, by cause; empty where none did."""
    by_cause = Counter[str]()
    messages: dict[str, set[str]] = {}
    for failure in failures:
        message = " ".join((failure.message or "").split())
        kind = failure.fault
        if kind not in CAUSES and message:
            kind = f"{failure.fault} {message.partition(':')[0]}"
        by_cause[kind] += failure.count
        messages.setdefault(kind, set()).add(message)
    if not by_cause:
        return ""
    told = []
    for kind, count in by_cause.most_common():
        fault = kind.partition(" ")[0]
        cause = CAUSES.get(fault, kind)
        if fault not in CAUSES and len(messages[kind]) == 1:  # one exception alone is shown in full
            cause = " ".join([fault, *messages[kind]]).strip()
        cause = cause if len(cause) <= LONGEST_CAUSE else f"{cause[: LONGEST_CAUSE - 1]}…"
        told.append(f"{cause} ({count})")
    return f"{counted(by_cause.total(), 'child', 'children')} failed: {', '.join(told)}"


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


def goal_metric(search: Search) -> str | None:
    """The metric that --minimize or --maximize names."""
    task = search.settings.get("task")
    goal = task.get("goal") if isinstance(task, dict) else None
    return str(goal["metric"]) if isinstance(goal, dict) and "metric" in goal else None


def metrics_text(metrics: Mapping[str, Any] | None, search: Search) -> list[str]:
    """A child's numeric metrics with their names; that of --minimize or --maximize comes first."""
    goal = goal_metric(search)
    numbers = {
        name: float(value)
        for name, value in (metrics or {}).items()
        if isinstance(value, float) or (name == goal and type(value) is int)
    }
    names = sorted(numbers, key=lambda name: name != goal)
    return [f"{name} {figure(numbers[name])}" for name in names]


def best_text(child: Child, search: Search) -> str:
    """The value of the best child: the metric of --minimize or --maximize, else the reward."""
    goal = goal_metric(search)
    told = metrics_text(child.metrics, search)
    return told[0] if goal in (child.metrics or {}) and told else figure(child.reward or 0.0)


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


def training_json(training: Training) -> dict[str, Any]:
    """A child's training again, as scripts read it."""
    fields = ("recipe_hash", "seed", "recipe", "reward", "metrics", "seconds", "ending")
    return {name: getattr(training, name) for name in fields}


def training_lines(trainings: Sequence[Training]) -> list[str]:
    """The results of training a child again, one line per recipe: mean and standard deviation over the seeds."""
    by_recipe: dict[str, list[Training]] = {}
    for training in trainings:
        by_recipe.setdefault(training.recipe_hash, []).append(training)
    lines = []
    for alike in by_recipe.values():
        recipe = alike[0].recipe
        options = recipe.get("options") or {}
        how = [recipe.get("recipe") or "", *(f"{name} {value}" for name, value in options.items())]
        how.append(counted(len(alike), "seed"))
        names = dict.fromkeys(name for one in alike for name in one.metrics)
        # A user's task may report any names; of a built-in task, validation and test metrics are shown.
        shown = [name for name in names if name.startswith(("val_", "test_"))] or list(names)
        told = []
        for name in shown:
            values = [one.metrics[name] for one in alike if isinstance(one.metrics.get(name), float)]
            if values:
                told.append(f"{name} {spread(values)}")
        if not told:
            told.append(f"reward {spread([one.reward for one in alike])}")
        lines.append(f"({', '.join(part for part in how if part)}): {', '.join(told)}")
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation, or the only value."""
    mean = figure(statistics.fmean(values))
    return mean if len(values) < 2 else f"{mean} ± {figure(statistics.stdev(values))}"


def spec_line(spec: object, space: str) -> str:
    """A stored spec in one line, in the notation of its space. A spec of the user's own space is shown as JSON, and so
    is one that the space cannot read.

    Args:
        space: its name in the search.
    """
    made = _as_made(LINES.get(space), spec, space)
    return _json_line(spec) if made is None else made


def spec_drawing(spec: object, space: str) -> list[str]:
    """A stored spec as lines of a drawing; none where the space has no drawing of it."""
    return (_as_made(DRAWINGS.get(space), spec, space) or "").splitlines()


def _as_made(write: Callable[[Any], str] | None, spec: object, space: str) -> str | None:
    """A spec in the notation of its space; None where the space cannot read it, for example one of a later version: one
    child must not keep a search from being shown."""
    if write is None:
        return None
    try:
        return write(spec)
    except Exception as error:
        # The text of an exception may quote the spec, which must not steer the terminal.
        logger.warning("A spec of the space %s cannot be read: %s: %r", space, type(error).__name__, str(error))
        return None


def _json_line(spec: object) -> str:
    """JSON in one line, with unprintable characters escaped."""
    text = json.dumps(spec, ensure_ascii=False, default=str)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _net_line(spec: Any) -> str:
    return " ".join(_layer(layer) for layer in spec["layers"])


def _cell_line(spec: Any) -> str:
    return RecurrentCell(**spec).line()


def _rule_line(spec: Any) -> str:
    return str(UpdateRule(**spec))


def _joint_line(spec: Any) -> str:
    network = _net_line(spec["net"]) if "net" in spec else _cell_line(spec["tree"])
    return f"{network} by {_rule_line(spec['rule'])} at {spec['learning_rate']:g}"


LINES: dict[str, Callable[[Any], str]] = {  # by space
    "convnet": _net_line,
    "recurrent-cell": _cell_line,
    "update-rule": _rule_line,
    "joint": _joint_line,
}
DRAWINGS: dict[str, Callable[[Any], str]] = {
    "recurrent-cell": lambda spec: RecurrentCell(**spec).drawing(),
    "joint": lambda spec: RecurrentCell(**spec["tree"]).drawing() if "tree" in spec else "",
}


def _layer(layer: Any) -> str:
    read = ",".join(str(index) for index in layer["inputs"]) or "image"
    stride = (
        ""
        if layer["stride_height"] == layer["stride_width"] == 1
        else (f"/{layer['stride_height']}x{layer['stride_width']}")
    )
    pool = "p" if layer["pool"] else ""
    return f"{layer['filter_height']}x{layer['filter_width']}x{layer['num_filters']}{stride}{pool}({read})"
