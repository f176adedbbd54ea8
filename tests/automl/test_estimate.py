"""The estimate of the time left, on simulated searches, and the expected cost of a first child."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import random

import pytest
from store_helpers import START, Clock, make_child, make_search, make_step

from automl.cli.time_check import TimeCheck
from automl.db.owner import Owner
from automl.db.records import Delivery
from automl.db.store import Store
from automl.estimate import Plan, ReadyChild, RunningChild, TrainedChild, expected_seconds, fitted_cost, seconds_left
from automl.status import PREPARED, StatusReader

STARTUP, OVERHEAD = 5.0, 0.1  # seconds until the first worker is ready, and between two children of one


@dataclasses.dataclass(frozen=True)
class Trained:
    """A child of a simulated search."""

    number: int
    batch: int
    flops: int
    worker: str
    started: float
    finished: float


def played(seed: int, plan: Plan, count: int, *, spread: float, noise: float, flops: bool = True) -> list[Trained]:
    """Simulates a search whose children cost 1 to `spread` seconds by their FLOPs, if known, and some noise."""
    draws = random.Random(seed)
    free = [(STARTUP + 0.3 * worker, str(worker)) for worker in range(plan.workers)]
    done: list[Trained] = []
    ends: dict[int, float] = {}
    for batch in range(count):
        numbers = range(batch * plan.batch_size, (batch + 1) * plan.batch_size)
        queue = [(-int(1e6 * draws.uniform(1, spread)), number) for number in numbers]
        for cost, number in sorted(queue) if flops else queue:
            if len(done) == count:
                return done
            at, worker = heapq.heappop(free)
            proposed = max((end for other, end in ends.items() if other <= batch - plan.replicas), default=0.0)
            started = max(at, proposed) + OVERHEAD
            finished = started - cost / 1e6 * draws.lognormvariate(0, noise)
            done.append(Trained(number, batch, -cost, worker, started, finished))
            ends[batch] = max(ends.get(batch, 0.0), finished)
            heapq.heappush(free, (finished, worker))
    return done


def estimated(children: list[Trained], now: float, plan: Plan, *, flops: bool) -> float | None:
    """The estimate at a moment of the search, from the earlier children only."""
    ended = [child for child in children if child.finished <= now]
    complete = 0
    while sum(child.batch == complete for child in ended) == plan.batch_size:
        complete += 1
    proposed = (complete + plan.replicas) * plan.batch_size
    begun = {child.number for child in children if child.started <= now}
    known = {child.number: child.flops for child in children if flops}
    return seconds_left(
        [
            TrainedChild(child.finished - child.started, known.get(child.number), child.worker, child.finished)
            for child in sorted(ended, key=lambda child: -child.number)[:50]
        ],
        [
            RunningChild(child.number, child.batch, known.get(child.number), child.worker, child.started)
            for child in children
            if child.started <= now < child.finished
        ],
        [
            ReadyChild(number, number // plan.batch_size, known.get(number))
            for number in range(proposed)
            if number not in begun
        ],
        wanted=len(children) - len(ended),
        proposed=proposed,
        failures=0.0,
        plan=plan,
        now=now,
        since=0.0,
    )


@pytest.mark.parametrize("workers", range(1, 9))
@pytest.mark.parametrize(("batch_size", "replicas"), [(8, 2), (8, 1), (4, 2), (1, 12)])
@pytest.mark.parametrize("flops", [True, False])
def test_after_eight_children_the_estimate_is_within_a_factor_of_one_and_a_half(workers, batch_size, replicas, flops):
    """Only while each worker has three more to train: the time of the last few depends on which they are."""
    plan = Plan(workers, batch_size, replicas)
    for seed in range(4):
        for count in (40, 150):
            children = played(seed, plan, count, spread=4 if flops else 2, noise=0.1, flops=flops)
            ends = sorted(child.finished for child in children)
            for trained in range(8, count - 3 * workers, 5):
                now = ends[trained - 1]
                told = estimated(children, now, plan, flops=flops)
                truth = ends[-1] - now
                assert told is not None and truth / 1.5 <= told <= truth * 1.5, (seed, count, trained, told, truth)


def test_there_is_no_estimate_before_a_child_is_trained():
    plan = Plan(2, 8, 2)
    children = played(0, plan, 20, spread=3, noise=0.1)
    assert estimated(children, min(child.finished for child in children) - 0.01, plan, flops=True) is None
    assert estimated(children, max(child.finished for child in children), plan, flops=True) == 0.0


def test_children_of_an_earlier_run_count_until_there_are_some_of_this_one():
    plan = Plan(1, 8, 2)
    asked = {"wanted": 10, "proposed": 16, "failures": 0.0, "plan": plan, "now": 1000.0}
    earlier = [TrainedChild(9.0, None, "old", 100.0 + index) for index in range(8)]
    here = [TrainedChild(1.0, None, "new", 900.0 + 1.0 * index) for index in range(4)]
    assert seconds_left(earlier, [], [], since=800.0, **asked) == pytest.approx(90.0)
    assert seconds_left([*here, *earlier], [], [], since=800.0, **asked) == pytest.approx(10.0)


def test_failed_children_do_not_count():
    plan = Plan(1, 8, 2)
    told = [TrainedChild(1.0, None, "0", float(index)) for index in range(8)]
    asked = {"wanted": 10, "proposed": 16, "plan": plan, "now": 8.0, "since": 0.0}
    assert seconds_left(told, [], [], failures=0.5, **asked) == pytest.approx(20.0)


def test_children_that_are_trained_together_take_turns():
    plan = Plan(2, 8, 2, together=8)
    told = [TrainedChild(1.0, None, "0", float(index)) for index in range(8)]
    ready = [ReadyChild(number, number // 8, None) for number in range(8, 24)]
    asked = {"proposed": 24, "failures": 0.0, "plan": plan, "now": 8.0, "since": 0.0}
    assert seconds_left(told, [], ready, wanted=8, **asked) == pytest.approx(8.0)  # one worker has all of them
    assert seconds_left(told, [], ready, wanted=16, **asked) == pytest.approx(8.0)


def test_the_end_of_a_long_search_is_estimated_from_the_rate_of_its_children():
    plan = Plan(3, 8, 2)
    told = [TrainedChild(1.0, None, str(index % 3), float(index // 3 + 1)) for index in range(24)]
    left = seconds_left(told, [], [], wanted=30_000, proposed=40, failures=0.0, plan=plan, now=8.0, since=0.0)
    assert left == pytest.approx(10_000.0, rel=0.15)


def test_the_cost_of_a_child_never_falls_with_its_flops():
    rising = fitted_cost([(1.0, 10), (2.0, 20), (3.0, 30)])
    assert [rising(flops) for flops in (0, 10, 40, None)] == pytest.approx([0.0, 1.0, 4.0, 2.0])
    falling = fitted_cost([(3.0, 10), (1.0, 30)])
    assert falling(10) == falling(30) == falling(None) == pytest.approx(2.0)
    assert fitted_cost([(3.0, 10), (1.0, None)])(99) == pytest.approx(2.0)


# Estimates from a store


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def begun(tmp_path, clock):
    """A search whose preparation began 20 s ago, with 16 children, and a function that begins its run."""
    with contextlib.closing(Store(str(tmp_path / "a.db"), create=True, clock=clock)) as store:
        search = make_search(store, budget=12)
        lease = store.take_lease("tiny", Owner.this_process())
        children = [dataclasses.replace(make_child(number, batch=number // 4), flops=1000) for number in range(16)]
        store.commit_step(lease, make_step(0), {}, children, {})

        def begin(time=None):
            machine = {"host": "h", PREPARED: 20.0}
            segment = {"children": 12, "time": time, "workers": 1, "versions": {}, "machine": machine}
            store.begin_segment(lease, segment | {"user_files": {}, "changes": {}})

        yield store, search, lease, begin


def train(store, lease, clock, seconds):
    claim = store.claim(lease.search_id, "1.0.1", "cpu")
    clock.pass_seconds(seconds)
    store.renew_lease(lease)
    assert store.deliver(claim, Delivery(reward=0.5, metrics={}, seconds=seconds))


def test_every_view_shows_the_same_time_left(begun, clock, tmp_path):
    """Also a view that another process has just opened."""
    store, _search, lease, begin = begun
    begin()
    own = StatusReader(store, "tiny")
    assert own.read().seconds_left is None
    for _ in range(8):
        train(store, lease, clock, 5.0)
    with contextlib.closing(Store(str(tmp_path / "a.db"), readonly=True, clock=clock)) as other:
        watching = StatusReader(other, "tiny").read()
    told = own.read()
    assert (watching.seconds, watching.seconds_left) == (told.seconds, told.seconds_left)
    assert told.seconds == pytest.approx(60.0) and told.seconds_left == pytest.approx(20.0)


def test_the_time_limit_counts_from_the_start_of_the_command(begun, clock):
    store, _search, lease, begin = begun
    begin(time=62.0)
    clock.pass_seconds(1.0)
    assert StatusReader(store, "tiny").read().seconds_left == pytest.approx(41.0)
    for _ in range(8):
        train(store, lease, clock, 5.0)
    assert StatusReader(store, "tiny").read().seconds_left == pytest.approx(1.0)
    clock.pass_seconds(9.0)
    assert StatusReader(store, "tiny").read().seconds_left == 0.0


# Before the first child is trained

CONSTANTS = {"epochs": 4, "num_train": 100, "precision": "float32"}  # 1000 FLOPs: 1.2 million for a child


def check(store, left, constants=CONSTANTS, rate=1e6, clock=None):
    notes = []
    looks = iter(range(100))
    made = TimeCheck(
        store,
        "tiny",
        lambda: constants,
        lambda: left,
        notes.append,
        workers=1,
        rate=lambda: rate,
        clock=lambda: next(looks),
    )
    return made, notes


def test_a_time_that_is_too_short_for_the_first_child_is_warned_of_at_the_start(begun):
    store, _, _, begin = begun
    begin()
    assert expected_seconds(1000, 100, 4, threads=1, rate=1e6) == pytest.approx(12.0)
    made, notes = check(store, 11.0)
    made.turn()
    made.turn()
    assert len(notes) == 1
    assert notes[0].startswith("A child takes roughly 12s here, and --time leaves 11s, so perhaps no child will be ")
    for left, constants in ((13.0, CONSTANTS), (1.0, {}), (1.0, CONSTANTS | {"num_train": None})):
        made, notes = check(store, left, constants)
        made.turn()
        assert notes == []
    made, notes = check(store, 11.0, CONSTANTS | {"precision": "bfloat16"})
    made.turn()
    assert notes == []  # a third of it


def test_the_first_epoch_warns_that_no_child_will_be_trained(begun, clock):
    store, search, _lease, begin = begun
    begin()
    made, notes = check(store, 25.0)
    made.turn()
    claim = store.claim(search.id, "1.0.1", "cpu")
    made.turn()
    clock.pass_seconds(10.0)
    assert store.measure(claim, 1, {"loss": 1.0})
    clock.pass_seconds(2.0)
    made.turn()
    made.turn()
    assert [note.partition(", so")[0] for note in notes] == [
        "The first child needs about 28s more, and --time leaves 25s"
    ]
    made, notes = check(store, 29.0)
    made.turn()
    made.turn()
    assert notes == []
    assert store.deliver(claim, Delivery(reward=0.5, metrics={}, seconds=1.0))
    made, notes = check(store, 0.1)
    made.turn()
    assert notes == []  # one is trained
    assert clock.now == START + 12.0
