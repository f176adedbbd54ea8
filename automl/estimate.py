"""Estimates the time left of a search, by a simulation of its workers with the measured costs of its children."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

MIN_CHILDREN = 4  # of the present run; with fewer, those of earlier runs count too, perhaps of another machine
MOST_SIMULATED = 512  # children; the rest is extrapolated from the rate of the later half of these
OVERDUE_TOTAL = 1.25  # expected total time of a child that runs for longer than expected, per second so far
OVERDUE_LEFT = 0.1  # expected time left of a child that runs for longer than any measured one, per second so far
TRAINING_TO_FORWARD = 3  # FLOPs of a training step over those of a forward pass
EFFICIENCY = 0.1  # FLOPs per second of a small network's training, relative to a large matrix product
HALF_EFFICIENCY = 0.3  # those of 16-bit training, relative to a 32-bit matrix product


@dataclasses.dataclass(frozen=True)
class TrainedChild:
    """A trained child. `finished` is in seconds since 1970; `flops` are those of one example, forward."""

    seconds: float
    flops: int | None
    worker: str | None
    finished: float


@dataclasses.dataclass(frozen=True)
class RunningChild:
    """A child that has been in training since `started` (seconds since 1970)."""

    number: int
    batch: int
    flops: int | None
    worker: str | None
    started: float


@dataclasses.dataclass(frozen=True)
class ReadyChild:
    """A child that is ready, or not proposed yet."""

    number: int
    batch: int
    flops: int | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How children are assigned to workers.

    Attributes:
        workers: their number; 1 if children train in the command's own process.
        batch_size: the number of children of a batch.
        replicas: batches in flight: batch b is proposed after the controller has learned from batch b - replicas.
        together: how many children of a batch are trained together.
    """

    workers: int
    batch_size: int
    replicas: int
    together: int = 1


def seconds_left(
    trained: Sequence[TrainedChild],
    running: Sequence[RunningChild],
    ready: Sequence[ReadyChild],
    *,
    wanted: int,
    proposed: int,
    failures: float,
    plan: Plan,
    now: float,
    since: float,
) -> float | None:
    """Seconds until `wanted` more children are trained; None while the cost of a child is unknown.

    Simulates the rest of the search: each worker takes the next child in the order of `Store.claim`, and waits while
    its batch is not proposed yet.

    Args:
        trained: the latest trained children.
        ready: the first ready children, in number order.
        proposed: the number of children proposed so far.
        failures: the share of children that fail, in [0, 1]; they do not count as trained.
        now: seconds since 1970, by the database's clock, as all times here.
        since: the start of the present run.
    """
    if wanted <= 0:
        return 0.0
    here = [child for child in trained if child.finished >= since]
    measured = here if len(here) >= MIN_CHILDREN else trained
    if not measured:
        return None
    costs = Costs([(child.seconds, child.flops) for child in measured])
    if plan.together == 1:  # short children end first, so running children that are overdue must raise the fit
        begun = [(OVERDUE_TOTAL * max(0.0, now - child.started), child.flops) for child in running]
        late = [(seconds, flops) for seconds, flops in begun if seconds > costs.expected(flops)]
        costs = Costs([*((child.seconds, child.flops) for child in measured), *late])
    between = _between(here)
    free, ends = _running_workers(running, costs, here, now, plan)
    to_start = max(0, round(wanted / max(0.1, 1.0 - failures)) - len(running))
    simulated = min(to_start, MOST_SIMULATED)
    sizes = [child.flops for child in measured] + [child.flops for child in running] + [child.flops for child in ready]
    likely = sorted(flops for flops in sizes if flops is not None)
    makespans = _simulate(free, ends, _upcoming(ready, simulated, proposed, likely, plan), costs, between, plan)
    if to_start > simulated:  # extrapolate the rest from the rate of the later half
        half = makespans[len(makespans) // 2]
        children_later = sum(1 for end in makespans if end > half) or 1
        return makespans[-1] + (to_start - simulated) * (makespans[-1] - half) / children_later
    return makespans[-1] if makespans else max(ends.values(), default=0.0)


class Costs:
    """A model of a child's seconds by its FLOPs: a linear fit to measured children, with their deviations.

    Args:
        measured: (seconds, FLOPs) of each measured child.
    """

    def __init__(self, measured: Sequence[tuple[float, int | None]]) -> None:
        self.expected = fitted_cost(measured)
        self._ratios = sorted(seconds / max(self.expected(flops), 1e-9) for seconds, flops in measured)

    def sample(self, flops: int | None, index: int) -> float:
        """Seconds of a child, with the deviation of one of the measured children, which depends on the index."""
        place = int(_van_der_corput(index) * len(self._ratios))
        return self.expected(flops) * self._ratios[place]

    def left(self, flops: int | None, elapsed: float) -> float:
        """Expected seconds left of a child that has run for `elapsed` seconds."""
        expected = self.expected(flops)
        longer = [ratio * expected - elapsed for ratio in self._ratios if ratio * expected > elapsed]
        return statistics.fmean(longer) if longer else OVERDUE_LEFT * elapsed


def _van_der_corput(index: int) -> float:
    """The index-th number of the van der Corput sequence: the index with its 16 bits reversed, in [0, 1)."""
    return int(f"{index % 2**16:016b}"[::-1], 2) / 2**16


def fitted_cost(measured: Sequence[tuple[float, int | None]]) -> Callable[[int | None], float]:
    """Seconds of a child by its FLOPs: a least-squares line with no negative slope; the mean if FLOPs are unknown."""
    mean = statistics.fmean(seconds for seconds, _ in measured)
    known = [(flops, seconds) for seconds, flops in measured if flops is not None]
    if len(known) < 2 or len({flops for flops, _ in known}) < 2:
        return lambda flops: mean
    mean_flops = statistics.fmean(flops for flops, _ in known)
    mean_known = statistics.fmean(seconds for _, seconds in known)
    variance = sum((flops - mean_flops) ** 2 for flops, _ in known)
    slope = sum((flops - mean_flops) * (seconds - mean_known) for flops, seconds in known) / variance
    slope = min(max(slope, 0.0), mean_known / mean_flops)  # no child takes less than 0 seconds

    def cost(flops: int | None) -> float:
        return mean if flops is None else mean_known + slope * (flops - mean_flops)

    return cost


def _between(trained: Iterable[TrainedChild]) -> float:
    """Seconds between two children of a worker that does not wait: the 5 % quantile of the measured gaps."""
    of_worker: dict[str | None, list[TrainedChild]] = defaultdict(list)
    for child in sorted(trained, key=lambda child: child.finished):
        of_worker[child.worker].append(child)
    gaps = [
        max(0.0, later.finished - earlier.finished - later.seconds)
        for children in of_worker.values()
        for earlier, later in itertools.pairwise(children)
    ]
    return sorted(gaps)[len(gaps) // 20] if gaps else 0.0


def _running_workers(
    running: Sequence[RunningChild], costs: Costs, here: Sequence[TrainedChild], now: float, plan: Plan
) -> tuple[list[float], dict[int, float]]:
    """Estimates the ends of the running children, in seconds from now.

    Returns:
        A heap of the times at which the workers become free, and the latest end of each batch's running children.
    """
    latest: dict[str | None, float] = {}
    for child in here:
        latest[child.worker] = max(latest.get(child.worker, 0.0), child.finished)
    of_worker: dict[str | None, list[RunningChild]] = defaultdict(list)
    for busy in running:
        of_worker[busy.worker].append(busy)
    free, ends = [], dict[int, float]()
    for worker, children in of_worker.items():
        if len(children) == 1:
            left = costs.left(children[0].flops, max(0.0, now - children[0].started))
        else:  # trained together: subtract the time since the worker's latest child ended
            begun = max(min(child.started for child in children), latest.get(worker, 0.0))
            whole = sum(costs.expected(child.flops) for child in children)
            left = max(whole - max(0.0, now - begun), OVERDUE_LEFT * whole)
        free.append(left)
        for busy in children:
            ends[busy.batch] = max(ends.get(busy.batch, 0.0), left)
    free += [0.0] * max(0, plan.workers - len(free))
    heapq.heapify(free)
    return free, ends


def _upcoming(
    ready: Sequence[ReadyChild], count: int, proposed: int, likely: Sequence[int], plan: Plan
) -> list[list[ReadyChild]]:
    """The next children in the order in which workers take them; those that are trained together are in one list.

    Args:
        likely: FLOPs of known children, sorted; a child that is not proposed yet gets one of them.
    """
    coming = [*ready[:count]]
    for number in range(proposed, proposed + count - len(coming)):
        flops = likely[int(_van_der_corput(number) * len(likely))] if likely else None
        coming.append(ReadyChild(number, number // plan.batch_size, flops))
    if plan.together == 1:
        coming.sort(key=lambda child: (child.batch, -(child.flops or 0), child.number))
        return [[child] for child in coming]
    groups: dict[tuple[int, int], list[ReadyChild]] = defaultdict(list)
    for child in coming:
        groups[child.batch, child.number % plan.batch_size // plan.together].append(child)
    return list(groups.values())


def _simulate(
    free: list[float],
    ends: dict[int, float],
    coming: Iterable[Sequence[ReadyChild]],
    costs: Costs,
    between: float,
    plan: Plan,
) -> list[float]:
    """Simulates the workers.

    Returns:
        For each upcoming child, the seconds from now until it and all children before it have ended.
    """
    makespans: list[float] = []
    latest = max(ends.values(), default=0.0)
    ends = dict(ends)
    for index, together in enumerate(coming):
        batch = together[0].batch
        # The controller learns from the batches in order.
        learned = max((end for other, end in ends.items() if other <= batch - plan.replicas), default=0.0)
        start = max(heapq.heappop(free), learned) + between
        end = start + sum(costs.sample(child.flops, index + place) for place, child in enumerate(together))
        heapq.heappush(free, end)
        ends[batch] = max(ends.get(batch, 0.0), end)
        latest = max(latest, end)
        makespans += [latest] * len(together)
    return makespans


# Before anything is measured


def matrix_rate(seconds: float = 0.05) -> float:
    """FLOPs per second of one thread of this machine, measured with float32 matrix products for `seconds`."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    matrix = np.ones((256, 256), np.float32)
    done, rounds = 0.0, 0
    with threadpool_limits(limits=1):
        matrix @ matrix
        began = time.perf_counter()
        while done < seconds:
            matrix @ matrix
            rounds += 1
            done = time.perf_counter() - began
    return rounds * 2 * 256**3 / done


def expected_seconds(
    flops: int, examples: int, epochs: int, *, threads: int, rate: float, half_precision: bool = False
) -> float:
    """A rough estimate of a child's seconds, often wrong by more than a factor of two.

    Args:
        flops: of the forward pass of one example.
        examples: training examples of an epoch.
        rate: FLOPs per second of one thread, from `matrix_rate`.
    """
    efficiency = HALF_EFFICIENCY if half_precision else EFFICIENCY
    return flops * TRAINING_TO_FORWARD * examples * epochs / (rate * efficiency * threads)
