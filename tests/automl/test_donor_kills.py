"""A search with donors is killed again and again, and its donors' stores are gone: it ends like one that was not."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from command_line import running, wait_until
from postgres import new_database, postgres_server

from automl.db.records import StoreError
from automl.paths import open_store

__all__ = ["new_database", "postgres_server"]  # fixtures

CHILDREN = 24
SLOW = """
import time

def slow(spec):
    time.sleep(0.02)
    return float(sum(map(ord, spec.values.values())) % 97)
"""
OURS = ("--space", "landscape", "--preset", "noisy", "--task", "slow.py:slow")
WARM = (
    *OURS,
    "--controller",
    "surrogate",
    "--set",
    "controller.uniform=20",
    "--set",
    "controller.mutations=20",
    "--batch-size",
    "4",
)


def digest(address: str) -> str:
    with contextlib.closing(open_store(address)) as store:
        return store.digest(store.search("second").id)


def trained(address: str) -> int:
    """The number of trained children; -1 while there is no search."""
    try:
        with contextlib.closing(open_store(address)) as store:
            return store.search("second").num_trained
    except StoreError:
        return -1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_without_the_stores_of_its_donors_it_is_the_same_search(automl, folder, kind, request):
    (folder / "slow.py").write_text(SLOW)
    donor, stores = "old.db", ("whole.db", "killed.db")
    if kind == "postgresql":
        make = request.getfixturevalue("new_database")
        donor, stores = make("donors"), (make("whole"), make("killed"))
    first = (*OURS, "--controller", "random", "--workers", "0", "--children", "20", "--store", donor)
    assert automl("search", "first", *first).code == 0
    start = ("search", "second", *WARM, "--children", str(CHILDREN), "--warm-start", f"first@{donor}")
    ran = automl(*start, "--workers", "0", "--replicas", "2", "--store", stores[0])
    assert ran.code == 0, ran.err
    assert "20 received" in " ".join(ran.out.split())

    command = (*start, "--workers", "1", "--replicas", "2", "--store", stores[1])
    for goal in (0, 3, 8, 9, 17):
        with running(*command, folder=folder) as process:
            wait_until(lambda goal=goal: trained(stores[1]) >= goal, f"{goal} children", process, interval=0.001)
            os.kill(process.process.pid, signal.SIGKILL)
            process.end()
        if goal == 0:  # from now on the donor is gone
            if kind == "postgresql":
                make("donors")
            else:
                Path(donor).unlink()
        command = ("resume", "second", "--store", stores[1])
    assert 0 < trained(stores[1]) < CHILDREN
    assert automl(*command).code == 0
    assert trained(stores[1]) == CHILDREN
    assert digest(stores[1]) == digest(stores[0])
