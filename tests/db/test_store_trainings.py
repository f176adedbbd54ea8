"""Children trained again after the search: their results and weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from store_helpers import START, Clock, claim, dump, make_training, packed, start, trained

from automl.db.records import SearchState, StoreError, Training
from automl.db.store import Store, training_kind

SMALL, LARGE = 2**20, 10  # how much of the weights is in the database: all, or nothing


@pytest.fixture
def child_id(store: Store) -> int:
    """A trained child of the search `tiny`, without weights."""
    search, _ = start(store)
    claimed = claim(store, search)
    assert store.deliver(claimed, trained(0.5))
    return claimed.child_id


def weight_of(store: Store, training: Training) -> float | None:
    weights = store.weights(training.child_id, training_kind(training.recipe_hash, training.seed))
    if weights is None:
        return None
    assert weights["w"].shape == (2, 2) and len(np.unique(weights["w"])) == 1
    return float(weights["w"][0, 0])


def files(folder: Path) -> int:
    return len(list(folder.glob("artefacts/*")))


def test_a_training_is_read_back_as_it_was_stored(store: Store, clock: Clock, child_id: int) -> None:
    assert store.trainings(child_id) == []
    clock.pass_seconds(5)
    training = make_training(child_id, reward=0.75)
    store.keep_training(training, packed(0.75))
    assert store.trainings(child_id) == [dataclasses.replace(training, finished=START + 5)]
    assert weight_of(store, training) == 0.75
    assert store.weights(child_id) is None  # those of the search, which were not kept
    assert store.weights(child_id, training_kind("long", 1)) is None


def test_the_child_and_its_search_stay_as_they_were(store: Store, child_id: int) -> None:
    before = dump(store)
    store.keep_training(make_training(child_id), packed(0.5))
    after = dump(store)
    assert {table for table in before if before[table] != after[table]} == {"trainings", "artefacts"}


def test_trainings_of_several_recipes_and_seeds_are_kept(store: Store, clock: Clock, child_id: int) -> None:
    made = [
        make_training(child_id, recipe_hash=recipe, seed=seed, reward=reward)
        for recipe, seed, reward in (("long", 2, 0.25), ("long", 1, 0.5), ("short", 1, 0.75), ("long", 0, 1.0))
    ]
    for training in made:
        clock.pass_seconds(1)
        store.keep_training(training, packed(training.reward))
    found = store.trainings(child_id)
    assert [(row.recipe_hash, row.seed) for row in found] == [("long", 2), ("long", 1), ("short", 1), ("long", 0)]
    assert [row.finished for row in found] == [START + 1, START + 2, START + 3, START + 4]  # oldest first
    assert [weight_of(store, training) for training in made] == [0.25, 0.5, 0.75, 1.0]
    assert store.trainings(child_id + 1) == []


@pytest.mark.parametrize(("first", "second"), [(SMALL, SMALL), (LARGE, LARGE), (LARGE, SMALL), (SMALL, LARGE)])
def test_the_same_training_again_replaces_it(
    store: Store, clock: Clock, child_id: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int, second: int
) -> None:
    other = make_training(child_id, seed=1)
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", first)
    store.keep_training(other, packed(0.125))
    store.keep_training(make_training(child_id, reward=0.25), packed(0.25))
    others = files(tmp_path) // 2
    clock.pass_seconds(5)
    again = make_training(child_id, reward=0.75)
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", second)
    store.keep_training(again, packed(0.75))
    assert store.trainings(child_id)[-1] == dataclasses.replace(again, finished=START + 5)
    assert len(store.trainings(child_id)) == 2
    assert (weight_of(store, other), weight_of(store, again)) == (0.125, 0.75)
    assert files(tmp_path) == others + (second == LARGE)


def test_equal_weights_again_stay(store: Store, child_id: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", LARGE)
    training = make_training(child_id)
    for _ in range(2):
        store.keep_training(training, packed(0.5))
    assert (weight_of(store, training), files(tmp_path)) == (0.5, 1)


def test_equal_weights_of_two_trainings_are_two_files(
    store: Store, child_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", LARGE)
    first, second = (make_training(child_id, recipe_hash=recipe) for recipe in ("long", "longer"))
    for training in (first, second):
        store.keep_training(training, packed(0.5))
    store.keep_training(first, packed(0.75))
    assert (weight_of(store, first), weight_of(store, second)) == (0.75, 0.5)


def test_equal_weights_of_a_search_and_a_training_are_two_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", LARGE)
    search, _ = start(store)
    claimed = claim(store, search)
    assert store.deliver(claimed, trained(0.25, packed(0.25)), keep=1)
    training = make_training(claimed.child_id)
    store.keep_training(training, packed(0.25))
    assert store.deliver(claim(store, search), trained(0.5, packed(0.5)), keep=1)
    assert store.weights(claimed.child_id) is None
    assert weight_of(store, training) == 0.25


@pytest.mark.parametrize("largest", [SMALL, LARGE], ids=["in the store", "in files"])
def test_better_children_do_not_displace_trainings(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, largest: int
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", largest)
    search, _ = start(store)
    first = claim(store, search)
    assert store.deliver(first, trained(0.25, packed(0.25)), keep=1)
    training = make_training(first.child_id)
    store.keep_training(training, packed(0.75))
    best = claim(store, search)
    assert store.deliver(best, trained(0.5, packed(0.5)), keep=1)
    assert store.weights(first.child_id) is None  # displaced
    assert store.weights(best.child_id) is not None
    assert weight_of(store, training) == 0.75
    assert files(tmp_path) == (2 if largest == LARGE else 0)


@pytest.mark.parametrize("largest", [SMALL, LARGE], ids=["in the store", "in files"])
def test_trainings_are_deleted_with_their_search(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, largest: int
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", largest)
    trainings = []
    for name in ("one", "two"):
        search, lease = start(store, name=name)
        claimed = claim(store, search)
        assert store.deliver(claimed, trained(0.25, packed(0.25)), keep=1)
        trainings.append(make_training(claimed.child_id))
        store.keep_training(trainings[-1], packed(0.5))
        store.release(lease, SearchState.PAUSED, None)
    store.delete("one")
    assert [len(store.trainings(training.child_id)) for training in trainings] == [0, 1]
    assert [weight_of(store, training) for training in trainings] == [None, 0.5]
    assert files(tmp_path) == (2 if largest == LARGE else 0)
    store.delete("two")
    assert dump(store)["trainings"] == dump(store)["artefacts"] == []
    assert files(tmp_path) == 0


@pytest.mark.parametrize("before", [True, False], ids=["again", "for the first time"])
def test_a_failed_write_of_weights_stores_nothing_and_deletes_nothing(
    store: Store, child_id: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: bool
) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", LARGE)
    training = make_training(child_id)
    if before:
        store.keep_training(training, packed(0.25))
    held = dump(store)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match=r"Weights cannot be written to .*: No space left on device"):
            store.keep_training(make_training(child_id, reward=0.75), packed(0.75))
    assert dump(store) == held
    assert (weight_of(store, training), files(tmp_path)) == ((0.25, 1) if before else (None, 0))


def test_a_training_of_no_child_is_refused(store: Store, child_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl.db.store.LARGEST_BLOB", LARGE)
    before = dump(store)
    with pytest.raises(StoreError, match="refused: ") as caught:
        store.keep_training(make_training(child_id + 99), packed(0.5))
    assert "\n" not in str(caught.value)
    assert dump(store) == before


def test_the_metrics_of_a_training_must_be_finite(store: Store, child_id: int) -> None:
    before = dump(store)
    with pytest.raises(ValueError, match="Out of range float values"):
        store.keep_training(dataclasses.replace(make_training(child_id), metrics={"loss": float("inf")}), packed(0.5))
    assert dump(store) == before
