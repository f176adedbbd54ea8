"""The status of a search, as the live view, the plain lines and `show` present it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from automl.child_views import best_text, ignores_input
from automl.db.records import Child, EndingCount, FailureCount, Search, SearchState, Segment, State
from automl.db.store import Store
from automl.estimate import Plan, ReadyChild, RunningChild, TrainedChild, seconds_left
from automl.search_spaces.views import spec_line
from automl.wording import counted, duration, format_number

REASONS = {  # why a rule was not trained to its end
    "screened": "rejected by the screening test",
    "diverged": "diverged",
    "hopeless": "pruned after the sweep",
}
CAUSES = {  # of failed and lost children, by fault; for `raised` the exception itself is shown
    "diverged": "diverged",
    "oom": "out of memory",
    "gpu_oom": "out of GPU memory",
    "timeout": "out of time",
    "crashed": "worker crashed",
    "node_lost": "machine lost",
    "store_lost": "store lost",
}
INTERRUPTED = "interrupted"  # shown for a search that is running in the store, but whose process is gone
PREPARED = "prepared_seconds"  # in a segment's `machine`: seconds from the start of the command to the segment
LONGEST_CAUSE = 160  # characters
LATEST = 50  # trained children from which shares of time and the reward curve are computed
SPARKS = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class SearchStatus:
    """The status of a search at one time.

    Attributes:
        counts: the number of children in each state.
        best: the best trained children, best first.
        latest: the latest trained children, highest number first.
        now: seconds since 1970, by the database's clock.
        seconds: of the present run, its preparation included; 0 if the search does not run.
        seconds_left: estimated; None while it cannot be estimated.
        slots: the worker's slot of each running child, by the child's number.
        interrupted: the search's process is gone; its children may still be `running` in the store.
        since: when the latest run began, in seconds since 1970.
    """

    search: Search
    counts: dict[str, int]
    best: list[Child]
    running: list[Child]
    latest: list[Child]
    now: float
    seconds: float
    seconds_left: float | None
    slots: Mapping[int, int] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    since: float = 0.0

    @property
    def children_an_hour(self) -> float | None:
        """How many children the latest run trains an hour, by the ends of the latest ones; None before three ended."""
        ends = sorted(child.finished for child in self.latest if child.finished is not None)
        ends = [end for end in ends if end >= self.since]
        if len(ends) < 3 or ends[-1] <= ends[0]:
            return None
        return 3600.0 * (len(ends) - 1) / (ends[-1] - ends[0])

    @property
    def speed(self) -> str:
        """The children an hour, in words; empty if they are not known yet."""
        rate = self.children_an_hour
        return "" if rate is None else f"{round(rate):,} children an hour"

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
        """The latest children's time by phase, and their traces; empty if no child reports phases."""
        timed = [child for child in self.latest if child.phases and child.seconds]
        total = sum(child.seconds or 0.0 for child in timed)
        if not total:
            return ""
        names = dict.fromkeys(name for child in timed for name in child.phases or {})
        shares = {name: sum((child.phases or {}).get(name, 0.0) for child in timed) / total for name in names}
        parts = [f"{name} {share:.0%}" for name, share in shares.items()]
        parts.append(f"other {max(0.0, 1.0 - sum(shares.values())):.0%}")
        counts = [(child.metrics or {}).get("traces") for child in timed]  # a user's task may use the name for anything
        traces = [count for count in counts if isinstance(count, int | float)]
        if traces:
            parts.append(f"{counted(round(sum(traces) / len(traces)), 'trace')} a child")
        return ", ".join(parts)

    @property
    def ignoring(self) -> str:
        """How many of the latest children ignore their input; empty if none does."""
        count = sum(ignores_input(child) for child in self.latest)
        if not count:
            return ""
        of = f"{count} of the latest {counted(len(self.latest), 'child', 'children')}"
        return f"{of} ignore their input, because their state decays to 0: they predict only word frequencies"

    @property
    def curve(self) -> str:
        """A sparkline of the latest rewards in number order, with the lowest and the highest."""
        rewards = [child.reward for child in reversed(self.latest) if child.reward is not None]
        if len(rewards) < 2:
            return ""
        low, high = min(rewards), max(rewards)
        scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
        blocks = "".join(SPARKS[round((reward - low) * scale)] for reward in rewards)
        return f"{blocks}  {format_number(low)} to {format_number(high)}"

    @property
    def waiting(self) -> str:
        """Why ready children are not running; empty if no child is ready."""
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
        """Counts, best reward and time left, in one line."""
        budget = "" if self.search.budget is None else f"/{self.search.budget}"
        parts = [f"{self.num_trained}{budget} trained"]
        words = {"running": INTERRUPTED if self.interrupted else "running", "failed": "failed", "lost": "lost"}
        parts += [f"{self.counts[state]} {word}" for state, word in words.items() if self.counts[state]]
        if self.best:
            parts.append(f"best {best_text(self.best[0], self.search)} (child {self.best[0].number})")
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return ", ".join(parts)


class StatusReader:
    """Reads the status of a search repeatedly, only from the store, so that all views show the same."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def read(self, best: int = 5) -> SearchStatus:
        """The present status, with the best `best` children."""
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
        return SearchStatus(
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
            since=0.0 if segment is None else segment.started,
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
    """Seconds until the budget is trained or the time is over, whichever comes first; None if unknown."""
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
    """Whether a search is running in the store, but no living process holds its lease."""
    runs = (SearchState.RUNNING, SearchState.STOPPING)
    if search.state not in runs or store.is_held(search.name):
        return False
    return store.search(search.name).state in runs  # it may have ended normally between the two reads


def shown_state(store: Store, search: Search) -> str:
    """The search's state as it is shown to the user."""
    return INTERRUPTED if is_interrupted(store, search) else search.state


def early_endings(counts: Sequence[EndingCount]) -> str:
    """How many update rules ended early, by reason, and how those that were trained in spite of a rejection did; empty
    if none ended early."""
    total = sum(count.count for count in counts)
    by_reason = Counter[str]()
    for count in counts:
        if count.why is not None:
            by_reason[count.why] += count.count
    if not by_reason:
        return ""
    parts = [f"{number} {REASONS.get(why, why)} ({number / total:.0%})" for why, number in by_reason.most_common()]
    anyway = [count for count in counts if count.screened and count.why != "screened"]
    if anyway:
        number, best = sum(count.count for count in anyway), max(count.best or 0.0 for count in anyway)
        parts.append(f"{number} trained in spite of a rejection (best reward {format_number(best)})")
    return f"of {total} trained: " + ", ".join(parts)


def failures_text(failures: Sequence[FailureCount]) -> str:
    """How many children failed or were lost, by cause; empty if none did."""
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
    parts = []
    for kind, count in by_cause.most_common():
        fault = kind.partition(" ")[0]
        cause = CAUSES.get(fault, kind)
        if fault not in CAUSES and len(messages[kind]) == 1:  # a single exception is shown in full
            cause = " ".join([fault, *messages[kind]]).strip()
        cause = cause if len(cause) <= LONGEST_CAUSE else f"{cause[: LONGEST_CAUSE - 1]}…"
        parts.append(f"{cause} ({count})")
    return f"{counted(by_cause.total(), 'child', 'children')} failed: {', '.join(parts)}"
