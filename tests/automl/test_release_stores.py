"""A store of a released version opens, and its searches continue unchanged."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run_automl

from automl.child_trainers.data.dataset import ImageData
from automl.child_trainers.experiment import make_task
from automl.child_trainers.images.task import ImageClassification
from automl.db.records import Child
from automl.db.store import Store
from automl.settings.stored import completed

RELEASED = Path(__file__).with_name("assets") / "release-0.1.0.sqlite"
DIGESTS = {
    "own": "f3812aa63443f30c032dbf9fc421415d729fa0f36b93a1ada1a42cdb7b56cfcd",
    "arrays": "9151bdb9a2548c055ba694af2608a86eaa0faf3387e14fa246b2ae08bf8b48be",
    "rules": "330a6359b6c3ae9109c573361014bb39d4e9073845b08cad19196f3c18247e7c",
    "cells": "55feb3ba9eb4b3a887e466c60318eb4cd93e4bb7852f04e2dbd17bfa31479707",
}
MINE = """from automl import Choice


def space():
    first = yield Choice("first", (1, 2, 3, 4, 5, 6))
    second = yield Choice("second", (1, 2, 3, 4, 5, 6))
    return {"first": first, "second": second}


def evaluate(spec, epochs, report):
    worth = (10 * spec["first"] + spec["second"]) / 66
    for epoch in range(1, epochs + 1):
        report(epoch, worth=worth * epoch / epochs)
    if spec["first"] == 6:
        raise ValueError("six is too many")
    return {"worth": worth}
"""


def arrays() -> dict[str, np.ndarray]:
    """Eighty images of four classes, sorted by class."""
    generator = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 20)
    x = (generator.random((80, 6, 6, 1)) * 80 + 40 * y[:, None, None, None]).astype(np.uint8)
    return {"x_train": x, "y_train": y, "x_validation": x[::4], "y_validation": y[::4]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of the store, the user's file and the arrays."""
    shutil.copy(RELEASED, tmp_path / "automl.db")
    (tmp_path / "mine.py").write_text(MINE)
    np.savez(tmp_path / "data.npz", allow_pickle=False, **arrays())
    return tmp_path


def children(folder: Path, name: str) -> list[Child]:
    store = Store(str(folder / "automl.db"), readonly=True)
    try:
        return store.children(store.search(name).id)
    finally:
        store.close()


def test_every_search_has_the_digest_that_the_release_printed(folder: Path) -> None:
    upgraded = Store(str(folder / "automl.db"), upgrade=True)
    found = {name: upgraded.digest(upgraded.search(name).id) for name in DIGESTS}
    upgraded.close()
    assert found == DIGESTS


def test_flags_of_children_are_read_as_the_release_meant_them(folder: Path) -> None:
    Store(str(folder / "automl.db"), upgrade=True).close()
    own, rules = children(folder, "own"), children(folder, "rules")
    assert [child.number for child in own if child.stopped_at is not None] == [18]
    assert [child.number for child in rules if child.ending == "screened"] == [0, 2, 3, 5, 6]
    assert [child.number for child in rules if child.ending == "hopeless"] == [1, 7]
    assert all("stopped" not in (child.metrics or {}) for child in own)


def test_a_search_over_a_users_file_continues(folder: Path) -> None:
    Store(str(folder / "automl.db"), upgrade=True).close()
    before = children(folder, "own")
    ran = run_automl(
        *("resume", "own", "--children", "20", "--space", "mine.py:space", "--task", "mine.py:evaluate"), folder=folder
    )
    assert ran.code in (0, 4), ran.err
    after = children(folder, "own")
    final = [child for child in before if child.state != "ready"]
    # The decisions of its tokens are recorded once the space has made the same child from the tokens.
    assert all(child.decisions == [0, 1] for child in after)
    learned = [dataclasses.replace(child, consumed_by=None, decisions=None) for child in after[: len(final)]]
    assert learned == [dataclasses.replace(child, consumed_by=None) for child in final]  # its batch was not complete
    assert sum(child.state == "trained" for child in after) == 20
    ready = [child for child in before if child.state == "ready"]
    assert [(child.number, child.tokens) for child in after][19:20] == [(child.number, child.tokens) for child in ready]


def data_of(folder: Path, name: str) -> ImageData:
    """The images that a search's children are trained on."""
    store = Store(str(folder / "automl.db"), readonly=True)
    task = make_task(completed(store.search(name).settings))
    store.close()
    assert isinstance(task, ImageClassification)
    return task.data


def test_arrays_are_read_as_the_release_read_them(folder: Path) -> None:
    """The first forty images are those of two classes; a new search draws forty of all four."""
    place = ("--task", "npz:data.npz")
    resumed = run_automl("resume", "arrays", "--children", "3", *place, folder=folder)
    assert resumed.code == 0, resumed.err
    assert set(data_of(folder, "arrays").y_train) == {0, 1}
    options = ("--set", "task.num_train=40", "--set", "task.epochs=1", "--children", "1", "--workers", "0")
    new = run_automl("search", "new", "--controller", "random", *place, *options, folder=folder)
    assert new.code == 0, new.err
    assert set(data_of(folder, "new").y_train) == {0, 1, 2, 3}


def test_rules_continue_under_the_program_of_the_release(folder: Path) -> None:
    ran = run_automl("resume", "rules", "--children", "9", folder=folder)
    assert ran.code == 0, ran.err
    assert sum(child.state == "trained" for child in children(folder, "rules")) == 9
    assert "one mask for all drops of a rule" in run_automl("show", "rules", folder=folder).out
