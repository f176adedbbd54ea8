"""Estimates how long a search will still take, by simulating its workers with the measured costs of its children."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

ENOUGH = 4  # children of the present run; with fewer, those of earlier runs, perhaps on another machine, count too
MOST_SIMULATED = 512  # children; the rest are estimated at the rate of the later half of these
LONGER = 1.25  # expected seconds of a child that runs for longer than expected, in those that it has run for
STILL = 0.1  # seconds left of a child that runs for longer than any other did, in those that it has run for
TRAINING_TO_FORWARD = 3  # FLOPs of a training step over those of a forward pass
EFFICIENCY = 0.1  # FLOPs per second of training a small network, as a share of those of a large matrix product
EFFICIENCY_OF_HALF = 0.3  # the same for 16-bit training, as a share of a 32-bit product


@dataclasses.dataclass(frozen=True)
class TrainedChild:
    """A trained child: its cost, its worker, and when it ended."""

    seconds: float
    flops: int | None
    worker: str | None
    finished: float


@dataclasses.dataclass(frozen=True)
class RunningChild:
    """A child that is being trained, since `started`."""

    number: int
    batch: int
    flops: int | None
    worker: str | None
    started: float


@dataclasses.dataclass(frozen=True)
class ReadyChild:
    """A child that is ready, or that is not proposed yet."""

    number: int
    batch: int
    flops: int | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How children are assigned to workers.

    Attributes:
        workers: their number; 1 where children train in the command's own process.
        batch_size: children of a batch.
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

    It simulates the rest of the search: each worker takes the next child in the store's order, and waits while its
    batch is not proposed yet.

    Args:
        trained: the latest trained children.
        ready: the first ready children, in number order.
        wanted: how many more children are to be trained.
        proposed: all children of the search so far.
        failures: the share of children that fail; they do not count as trained.
        since: when the present run began; all times are by the database's clock.
    """
    if wanted <= 0:
        return 0.0
    here = [child for child in trained if child.finished >= since]
    told = here if len(here) >= ENOUGH else trained
    if not told:
        return None
    costs = Costs([(child.seconds, child.flops) for child in told])
    if plan.together == 1:  # short children end first, so those that already run for longer must count too
        begun = [(LONGER * max(0.0, now - child.started), child.flops) for child in running]
        late = [(seconds, flops) for seconds, flops in begun if seconds > costs.expected(flops)]
        costs = Costs([*((child.seconds, child.flops) for child in told), *late])
    between = _between(here)
    free, ends = _running_workers(running, costs, here, now, plan)
    to_start = max(0, round(wanted / max(0.1, 1.0 - failures)) - len(running))
    played = min(to_start, MOST_SIMULATED)
    sizes = [child.flops for child in told] + [child.flops for child in running] + [child.flops for child in ready]
    likely = sorted(flops for flops in sizes if flops is not None)
    makespans = _simulate(free, ends, _upcoming(ready, played, proposed, likely, plan), costs, between, plan)
    if to_start > played:  # the rest, at the rate of the later half
        half = makespans[len(makespans) // 2]
        children_later = sum(1 for end in makespans if end > half) or 1
        return makespans[-1] + (to_start - played) * (makespans[-1] - half) / children_later
    return makespans[-1] if makespans else max(ends.values(), default=0.0)


class Costs:
    """Seconds of a child by its FLOPs, and their variation, from (seconds, FLOPs) of measured children."""

    def __init__(self, measured: Sequence[tuple[float, int | None]]) -> None:
        self.expected = fitted_cost(measured)
        self._ratios = sorted(seconds / max(self.expected(flops), 1e-9) for seconds, flops in measured)

    def drawn(self, flops: int | None, index: int) -> float:
        """A cost with the deviation of one of the measured children, each in turn; a function of the index."""
        place = int(_spread(index) * len(self._ratios))
        return self.expected(flops) * self._ratios[place]

    def left(self, flops: int | None, elapsed: float) -> float:
        """Expected seconds left of a child that has run for `elapsed` seconds."""
        expected = self.expected(flops)
        longer = [ratio * expected - elapsed for ratio in self._ratios if ratio * expected > elapsed]
        return statistics.fmean(longer) if longer else STILL * elapsed


def _spread(index: int) -> float:
    """The index-th number of the van der Corput sequence (the index with its bits reversed), which covers 0 to 1
    evenly."""
    return int(f"{index % 2**16:016b}"[::-1], 2) / 2**16


def fitted_cost(measured: Sequence[tuple[float, int | None]]) -> Callable[[int | None], float]:
    """Seconds of a child by its FLOPs: a least-squares line that never falls; the mean where FLOPs are unknown."""
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
    """Seconds between two children of one worker that does not wait: a low quantile of the measured gaps."""
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
    """When each worker will be free, and when the running children of each batch will have ended; seconds from now."""
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
        else:  # trained together: subtract the time since the latest one ended
            begun = max(min(child.started for child in children), latest.get(worker, 0.0))
            whole = sum(costs.expected(child.flops) for child in children)
            left = max(whole - max(0.0, now - begun), STILL * whole)
        free.append(left)
        for busy in children:
            ends[busy.batch] = max(ends.get(busy.batch, 0.0), left)
    free += [0.0] * max(0, plan.workers - len(free))
    heapq.heapify(free)
    return free, ends


def _upcoming(
    ready: Sequence[ReadyChild], count: int, proposed: int, likely: Sequence[int], plan: Plan
) -> list[list[ReadyChild]]:
    """The next children in the order in which workers take them; those that are trained together are in one list. The
    FLOPs of children that are not proposed yet are those of `likely`, each in turn."""
    coming = [*ready[:count]]
    for number in range(proposed, proposed + count - len(coming)):
        flops = likely[int(_spread(number) * len(likely))] if likely else None
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
    """The makespan after each upcoming child: when it and all before it will have ended."""
    makespans: list[float] = []
    latest = max(ends.values(), default=0.0)
    ends = dict(ends)
    for index, together in enumerate(coming):
        batch = together[0].batch
        # Batches are learned from in order.
        learned = max((end for other, end in ends.items() if other <= batch - plan.replicas), default=0.0)
        start = max(heapq.heappop(free), learned) + between
        end = start + sum(costs.drawn(child.flops, index + place) for place, child in enumerate(together))
        heapq.heappush(free, end)
        ends[batch] = max(ends.get(batch, 0.0), end)
        latest = max(latest, end)
        makespans += [latest] * len(together)
    return makespans


# Before anything is measured


def matrix_rate(seconds: float = 0.05) -> float:
    """FLOPs per second of one thread on this machine now, measured with matrix products."""
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
    """A rough estimate of a child's seconds, from the FLOPs of an example and `rate`, the FLOPs per second of a thread.
    It is often wrong by more than a factor of two."""
    efficiency = EFFICIENCY_OF_HALF if half_precision else EFFICIENCY
    return flops * TRAINING_TO_FORWARD * examples * epochs / (rate * efficiency * threads)
