"""Shared parts of the store's tests: a clock that they set, tiny searches, and dumps of whole databases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import select

from automl.db import blobs
from automl.db.digest import state_hash
from automl.db.owner import Owner
from automl.db.records import Child, Claim, Delivery, Donor, Lease, NewChild, Search, Step, Training
from automl.db.schema import Row
from automl.db.store import Store

START = 1_700_000_000.0
HERE = Owner("this-host", "boot-a", 11, 100)  # on no real host, so never known to be gone
THERE = Owner("that-host", "boot-b", 22, 200)


class Clock:
    """The database's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


def make_search(
    store: Store, name: str = "tiny", *, budget: int | None = None, seed: int = 7, donors: Sequence[Donor] = ()
) -> Search:
    return store.create_search(
        name,
        space="space",
        task="task",
        controller="random",
        seed=seed,
        replicas=1,
        batch_size=4,
        threads=1,
        settings={"rate": 0.5},
        budget=budget,
        donors=donors,
    )


def make_donor(name: str = "earlier") -> Donor:
    decisions = [{"name": "depth", "kind": "depth", "options": [1, 2]}, {"name": "in", "kind": "in", "count": 0}]
    return Donor(
        name, "sqlite:///old.db", "space", "task", 9, 9, 2, decisions, [[0, 1]] * 2, [[1], [0]], [5, 2.5], [0.75, 0.25]
    )


def make_child(number: int, *, batch: int = 0, canonical_hash: str | None = None) -> NewChild:
    return NewChild(
        number=number,
        batch=batch,
        policy_step=0,
        origin="policy",
        tries=1,
        tokens=(number, 1),
        log_probs=(-0.5, None),
        canonical_hash=canonical_hash or f"hash-{number}",
        spec={"depth": number},
        seed=2**62 + number,
        params=10 * number,
        flops=None,
    )


def make_step(number: int, consumed_batch: int | None = None) -> Step:
    arrays = {"w": np.full(3, number, np.float32)}
    blob = blobs.pack(arrays)
    return Step(number, consumed_batch, {"loss": 0.25}, state_hash(arrays, {"n": number}), blob, blobs.sha256(blob))


def start(
    store: Store, children: int = 4, *, name: str = "tiny", budget: int | None = None, donors: Sequence[Donor] = ()
) -> tuple[Search, Lease]:
    """A running search with its first step and its first children."""
    make_search(store, name, budget=budget, donors=donors)
    lease = store.take_lease(name, HERE)
    proposals = [make_child(number) for number in range(children)]
    store.commit_step(lease, make_step(0), {}, proposals, {"repeat": 1})
    return store.search(name), lease


def claim(store: Store, search: Search, worker: str = "worker-a") -> Claim:
    claimed = store.claim(search.id, worker, "cpu")
    assert claimed is not None
    return claimed


def child_of(store: Store, search: Search, number: int) -> Child:
    (child,) = store.children(search.id, number=number)
    return child


def trained(reward: float = 0.5, weights: bytes | None = None) -> Delivery:
    return Delivery(reward=reward, metrics={"accuracy": reward, "seconds": 3.0}, seconds=3.0, weights=weights)


def make_training(
    child_id: int, *, recipe_hash: str = "long", seed: int = 2**62, reward: float = 0.5, finished: float = 0.0
) -> Training:
    """The result of a training; the store replaces `finished` by its own time."""
    recipe, metrics = {"epochs": 20}, {"accuracy": reward}
    return Training(child_id, recipe_hash, seed, recipe, reward, metrics, seconds=9.5, finished=finished)


def packed(value: float) -> bytes:
    return blobs.pack({"w": np.full((2, 2), value, np.float32)})


def dump(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with store._engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in Row.metadata.sorted_tables
        }


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
