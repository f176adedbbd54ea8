"""Several threads or processes at once: one coordinator, one worker for each child, one schema."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_helpers import HERE, claim, make_child, make_search, make_step, start, trained
from waiting import SECONDS

from automl.db import migrate
from automl.db.engine import BUSY_SECONDS
from automl.db.owner import Owner
from automl.db.records import Delivery, Fault, LeaseHeldError, NameTakenError, SearchState, StoreError
from automl.db.schema import APPLICATION_ID
from automl.db.store import Store

ROOT = Path(__file__).parents[2]


def all_at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """Runs each call in its own thread, all started together; returns their results or errors."""
    results: list[Any] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = works[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@contextlib.contextmanager
def opened(address: str, count: int) -> Iterator[list[Store]]:
    """The store opened several times, as by several processes."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Store(address))) for _ in range(count)]


def test_one_of_many_becomes_the_coordinator(address: str) -> None:
    with opened(address, 8) as stores:
        make_search(stores[0])
        for round_ in range(1, 6):
            owners = [Owner("this-host", "boot", number, 1) for number in range(8)]
            works = [
                lambda store=store, owner=owner: store.take_lease("tiny", owner)
                for store, owner in zip(stores, owners, strict=True)
            ]
            results = all_at_once(works)
            leases = [result for result in results if not isinstance(result, Exception)]
            assert [lease.epoch for lease in leases] == [round_]
            assert all(isinstance(result, LeaseHeldError) for result in results if isinstance(result, Exception))
            owner = stores[0].search("tiny").owner
            assert owner == owners[results.index(leases[0])].to_json()
            stores[0].release(leases[0], SearchState.PAUSED, None)


def test_each_child_goes_to_one_worker(address: str) -> None:
    with opened(address, 8) as stores:
        search, _ = start(stores[0], children=50)

        def drain(store: Store, name: str) -> list[int]:
            numbers = []
            while (claimed := store.claim(search.id, name, "cpu")) is not None:
                numbers.append(claimed.number)
            return numbers

        results = all_at_once([lambda store=store, name=f"w{i}": drain(store, name) for i, store in enumerate(stores)])
        assert sorted(number for numbers in results for number in numbers) == list(range(50))
        assert all(numbers == sorted(numbers) for numbers in results)


def test_many_deliveries_of_one_claim_count_once(address: str) -> None:
    with opened(address, 8) as stores:
        search, _ = start(stores[0])
        claimed = claim(stores[0], search)
        results = all_at_once([lambda store=store: store.deliver(claimed, trained()) for store in stores])
        assert sorted(results) == [False] * 7 + [True]
        assert stores[0].search("tiny").num_trained == 1


def test_a_name_is_given_once(address: str) -> None:
    with opened(address, 6) as stores:
        results = all_at_once([lambda store=store: make_search(store) for store in stores])
        assert sum(isinstance(result, NameTakenError) for result in results) == 5, results
        assert len(stores[0].searches()) == 1


def test_workers_and_takeovers_do_not_block_each_other(address: str) -> None:
    """Deliveries and take-overs must lock a search and its children in one order, or the database ends one of them."""
    with opened(address, 6) as stores:
        search, lease = start(stores[0], children=60)
        stores[0].commit_step(lease, make_step(1), {}, [make_child(99, batch=1)], {})

        def work(store: Store, name: str) -> int:
            delivered = 0
            for turn in range(12):
                claimed = store.claim(search.id, name, "cpu")
                if claimed is not None and turn % 3 == 0:
                    store.fail_attempt(claimed, Fault.RAISED)
                elif claimed is not None:
                    delivery = Delivery(fault=Fault.DIVERGED) if turn % 3 == 1 else trained()
                    delivered += store.deliver(claimed, delivery) and delivery.fault is None
            return delivered

        def take_over(store: Store) -> int:
            for _ in range(12):
                store.take_lease("tiny", HERE, gone=lambda owner: True)
            return 0

        works = [lambda store=store, name=f"w{i}": work(store, name) for i, store in enumerate(stores[:5])]
        results = all_at_once([*works, lambda: take_over(stores[5])])
        assert not [result for result in results if isinstance(result, Exception)], results
        counts = stores[0].counts(search.id)
        assert counts["trained"] == sum(results) == stores[0].search("tiny").num_trained
        assert sum(counts.values()) == 61


CREATE = """
import sys
from automl.db.store import Store
sys.stdin.read(1)
store = Store(sys.argv[1], create=True)
print(len(store.searches()))
store.close()
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_create_one_store_all_succeed(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "new.db") if kind == "sqlite" else request.getfixturevalue("new_database")("race")
    command = [sys.executable, "-W", "error", "-c", CREATE, address]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("g")
            process.stdin.flush()
        results = [(*process.communicate(timeout=SECONDS), process.returncode) for process in processes]
    assert results == [("0\n", "", 0)] * 3


def test_a_new_file_that_another_process_locks_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own timeout does not hold for the switch to WAL mode."""
    path = tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                other.execute("ROLLBACK")

        migrate.create_file(path, pause=pause)
    assert len(pauses) == 3
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_new_file_that_stays_locked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    pauses: list[float] = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"new\.db cannot be created: database is locked\.$"):
            migrate.create_file(path, pause=pauses.append)
    assert sum(pauses) == pytest.approx(BUSY_SECONDS, abs=migrate.PAUSE_SECONDS)
