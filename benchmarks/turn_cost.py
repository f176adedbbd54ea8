"""Milliseconds per turn of the loop in searches of 100 and of 100,000 children, without any training.

In a turn, a worker claims, measures and delivers one child, a listener receives the events, and the status for a live
view is read. Every tenth turn learns from a batch and proposes the next one.

    python benchmarks/turn_cost.py
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from automl.child_trainers.workers.pool import Pool
from automl.controller_records import pack_state
from automl.controllers.base import Cost
from automl.controllers.random_search import RandomSearch
from automl.coordinator import Coordinator
from automl.db import blobs
from automl.db.owner import Owner
from automl.db.records import Delivery, Lease, Origin, State
from automl.db.schema import AttemptRow, ChildRow, SearchRow, StepRow
from automl.db.store import Store
from automl.listeners.base import ChildEnded, ChildStarted, Measured, SearchListener
from automl.listeners.dispatch import Listeners
from automl.proposer import Limits, Proposer
from automl.search_spaces.decisions import Choice
from automl.search_spaces.recorded import Catalogue
from automl.search_spaces.space import Space
from automl.status import StatusReader

BATCH = 10
FAILED_EVERY = 50  # of the children that have ended before the first turn


def space() -> Any:
    digits = []
    for index in range(12):
        digits.append((yield Choice(f"digit{index}", tuple(range(10)), kind="digit")))
    return digits


class OneChildPool(Pool):
    """Claims and delivers one child in every call. The reward depends on the child's number."""

    def __init__(self, store: Store, search_id: int, epoch: int) -> None:
        self._store = store
        self._search_id = search_id
        self._epoch = epoch

    def tend(self) -> bool:
        claim = self._store.claim(self._search_id, "1.0.1", "cpu", epoch=self._epoch, slot=0)
        if claim is None:
            return False
        self._store.measure(claim, 1, {"value": 0.5})
        return self._store.deliver(claim, Delivery(reward=reward_of(claim.number), weights=b"weights"), keep=3)

    def wait(self, seconds: float) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


class Counting(SearchListener):
    """Counts the events of children."""

    def __init__(self) -> None:
        self.started = self.measurements = self.ended = 0

    def child_started(self, event: ChildStarted) -> None:
        self.started += 1

    def measured(self, event: Measured) -> None:
        self.measurements += 1

    def child_ended(self, event: ChildEnded) -> None:
        self.ended += 1


def reward_of(number: int) -> float:
    return (number * 7919 % 10_007) / 10_007


def fill(store: Store, count: int) -> Lease:
    """Writes a search in which `count` children have ended and were learned from, and the next batch is ready.

    The rows are inserted directly, since proposing the children would take an hour.
    """
    search = store.create_search(
        "tried",
        space="digits",
        task="none",
        controller="random",
        seed=7,
        replicas=1,
        batch_size=BATCH,
        threads=1,
        settings={},
        budget=None,
    )
    lease = store.take_lease("tried", Owner.this_process())
    now = store.now()
    children, attempts, steps = [], [], []
    for number in range(count + BATCH):
        over, failed = number < count, number % FAILED_EVERY == FAILED_EVERY - 1
        digits = [int(digit) for digit in f"{number:012d}"]
        ended: dict[str, Any] = {
            "state": State.FAILED if failed else State.TRAINED,
            "reward": None if failed else reward_of(number),
        }
        ended |= {"fault": "raised" if failed else None, "finished": now - 10 - count + number, "seconds": 1.0}
        ended |= {"consumed_by": number // BATCH + 1, "worker": "1.0.1", "started": now - 11 - count + number}
        open_child = dict.fromkeys(ended) | {"state": State.READY}
        children.append(
            {
                "search_id": search.id,
                "number": number,
                "batch": number // BATCH,
                "policy_step": number // BATCH,
                "origin": Origin.POLICY,
                "tries": 0,
                "tokens": digits,
                "log_probs": [-1.0] * len(digits),
                "canonical_hash": f"{number:064d}",
                "spec": digits,
                "seed": number,
                "fence": 1 if over else 0,
                **(ended if over else open_child),
            }
        )
    for batch in range(count // BATCH + 1):
        consumed = None if batch == 0 else batch - 1
        step = {"search_id": search.id, "number": batch, "consumed_batch": consumed, "stats": {"proposed": True}}
        steps.append(step | {"state_hash": f"{batch:064d}"})
    controller = RandomSearch(Space(space), seed=7)
    blob = pack_state(controller.state())
    with store._engine.begin() as connection:
        connection.execute(insert(ChildRow), children)
        ids = connection.execute(ChildRow.__table__.select().with_only_columns(ChildRow.id, ChildRow.number)).all()
        for child_id, number in ids:
            if number < count:
                attempts.append({"child_id": child_id, "fence": 1, "worker": "1.0.1", "device": "cpu", "started": now})
        connection.execute(insert(AttemptRow), attempts)
        connection.execute(insert(StepRow), steps)
        last = (StepRow.search_id == search.id, StepRow.number == count // BATCH)
        connection.execute(update(StepRow).where(*last).values(blob=blob, blob_sha256=blobs.sha256(blob)))
        trained = sum(child["state"] == State.TRAINED for child in children)
        connection.execute(update(SearchRow).values(num_trained=trained))
    return lease


@contextlib.contextmanager
def turning(folder: Path, count: int) -> Iterator[tuple[Store, Coordinator, StatusReader, Counting]]:
    """A coordinator over a search of `count` children, the reader of its status, and its listener.

    Args:
        count: a multiple of the batch size.
    """
    with contextlib.closing(Store(folder / f"{count}.db", create=True)) as store:
        lease = fill(store, count)
        search = store.search("tried")
        digits = Space(space)
        controller = RandomSearch(digits, seed=7)
        proposer = Proposer(
            digits,
            controller,
            lambda spec: Cost(None, None),
            Limits(),
            seed=7,
            seen=store.hashes(search.id),
            refused={},
            catalogue=Catalogue(store.decisions(search.id)),
        )
        counting = Counting()
        pool = OneChildPool(store, search.id, lease.epoch)
        listeners = Listeners([counting])
        coordinator = Coordinator(store, search, lease, controller, proposer, pool, floor=None, listeners=listeners)
        yield store, coordinator, StatusReader(store, "tried"), counting


def turn(coordinator: Coordinator, reader: StatusReader) -> None:
    coordinator.turn(None)
    coordinator.notify_listeners()
    reader.read()


def milliseconds(folder: Path, count: int, turns: int) -> Sequence[float]:
    """Milliseconds of every turn, sorted."""
    with turning(folder, count) as (_, coordinator, reader, counting):
        seconds = []
        for _ in range(turns):
            began = time.perf_counter()
            turn(coordinator, reader)
            seconds.append(1000 * (time.perf_counter() - began))
        assert counting.ended == turns, counting.ended
    return sorted(seconds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--turns", type=int, default=200)
    arguments.add_argument("--children", type=int, nargs="*", default=[100, 100_000])
    given = arguments.parse_args()
    for count in given.children:
        with tempfile.TemporaryDirectory() as folder:
            taken = milliseconds(Path(folder), count, given.turns)
        median, mean = taken[len(taken) // 2], sum(taken) / len(taken)
        print(f"{count:7d} children: {median:.1f} ms a turn (median of {given.turns}), mean {mean:.1f}")


if __name__ == "__main__":
    main()
