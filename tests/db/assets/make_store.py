"""Writes a small store of the present schema: `python tests/db/assets/make_store.py FILE`, from the project's root.

It has a search with a trained, a failed and a running child, measurements, weights, a training, a request, two steps
and a segment, whose coordinator was asked to stop and died.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2] / "support")]

from store_helpers import Clock, claim, make_child, make_step, make_training, packed, start, trained  # noqa: E402

from automl.db.records import Delivery, Fault  # noqa: E402
from automl.db.store import Store  # noqa: E402


def main(path: str) -> None:
    with closing(Store(path, create=True, clock=Clock())) as store:
        search, lease = start(store, name="old", budget=3)
        empty: dict[str, dict[str, str]] = {name: {} for name in ("versions", "machine", "user_files", "changes")}
        store.begin_segment(lease, {"children": 3, "time": None, "workers": 2} | empty)
        first = claim(store, search)
        store.measure(first, 0, {"accuracy": 0.5})
        phases = {"compile": 1.0, "train": 2.0}
        store.deliver(first, dataclasses.replace(trained(0.5, weights=packed(0.5)), phases=phases), keep=1)
        store.keep_training(make_training(first.child_id), packed(0.75))
        store.deliver(claim(store, search), Delivery(fault=Fault.OOM, message="out of memory"))
        store.commit_step(lease, make_step(1, 0), {0: 0.5, 1: 0.0}, [make_child(4, batch=1)], {"repeat": 2})
        claim(store, search)
        store.request_child("old", (2, 1))
        store.request_stop("old")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # one file, that can be looked at without writing
        connection.execute("VACUUM")


if __name__ == "__main__":
    main(sys.argv[1])
