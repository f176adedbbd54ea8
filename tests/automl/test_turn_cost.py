"""A turn of the loop does as much work in a search of 20,000 children as in one of 100. Reading the status also counts
the failed children, with one index entry each."""

import importlib.util
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from automl.db import queries
from automl.db.records import State

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "turn_cost.py"
FEW, MANY = 100, 20_000
TURNS = 20  # two batches, with the steps that follow them
UNIT = 20  # instructions of SQLite's virtual machine


@pytest.fixture(scope="module")
def turn_cost():
    spec = importlib.util.spec_from_file_location("turn_cost", BENCHMARK)
    module = sys.modules["turn_cost"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["turn_cost"]


class Work:
    """Counts the instructions that SQLite executes for a store; other processes do not change this number."""

    def __init__(self, store):
        self.units = 0
        event.listen(store._engine, "checkout", self._count)

    def _count(self, connection, *_):
        connection.set_progress_handler(self._step, UNIT)

    def _step(self):
        self.units += 1
        return 0


@pytest.fixture(scope="module")
def work(turn_cost, tmp_path_factory):
    """Work for some turns, and for some reads of the status, by the number of children."""
    found = {}
    for count in (FEW, MANY):
        with turn_cost.turning(tmp_path_factory.mktemp("turns"), count) as (store, coordinator, reader, told):
            counted = Work(store)
            reader.read()
            looks = counted.units
            for _ in range(TURNS):
                coordinator.turn(None)
                coordinator.notify_listeners()
            assert (told.started, told.measurements, told.ended) == (TURNS, TURNS, TURNS)
            found[count] = {"turns": counted.units - looks, "looks": looks}
            search = store.search("tried")
            assert store.counts(search.id)[State.FAILED] == count // turn_cost.FAILED_EVERY
            lowest = store.lowest_reward(search.id, before_batch=count // turn_cost.BATCH)
            assert lowest == min(child.reward for child in store.children(search.id) if child.reward is not None)
    return found


def test_work_does_not_grow_with_the_search(turn_cost, work):
    assert work[FEW]["turns"] > 0
    assert work[MANY]["turns"] < 1.1 * work[FEW]["turns"] + 10, work
    failed = (MANY - FEW) // turn_cost.FAILED_EVERY
    assert work[MANY]["looks"] < 1.1 * work[FEW]["looks"] + 10 + 10 * failed / UNIT, work


@pytest.mark.parametrize("name", ["ENDED", "COUNTS", "RUNNING_ATTEMPTS", "LOWEST_REWARDS", "MEASURED_AFTER"])
def test_the_queries_of_a_turn_use_an_index(turn_cost, tmp_path, name):
    with turn_cost.turning(tmp_path, 10) as (store, *_):
        statement = getattr(queries, name).compile(store._engine)
        with store._engine.connect() as connection:
            parameters = (1,) * len(statement.positiontup)
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    steps = [row.detail for row in plan]
    assert not [step for step in steps if step.startswith("SCAN") and "CONSTANT ROW" not in step], steps
    if name == "ENDED":
        assert any("ix_children_search_id_finished" in step for step in steps), steps
