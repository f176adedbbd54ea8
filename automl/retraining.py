"""Trains a child again after the search, with a longer recipe and several seeds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from automl.child_trainers.artefacts import Artefacts
from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.registry import kind_of, recipes_of
from automl.child_trainers.task import Record
from automl.child_trainers.training.checkpoints import Checkpoint, identity_of
from automl.db import blobs
from automl.db.records import Child, Search, Training
from automl.db.store import Store
from automl.search_spaces.spec import Spec, as_spec, canonical_json
from automl.settings.checks import check_task_options
from automl.settings.parsing import task_options
from automl.settings.stored import completed
from automl.stored import load_experiment, recorded_child

Progress = Callable[[int, int, Mapping[str, float], float], None]  # seed, epoch, its metrics, the seconds it took


class TrainReport(Record):
    """Reports every epoch to the user."""

    def __init__(self, seed: int, progress: Progress, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._seed = seed
        self._progress = progress
        self._last = time.perf_counter()

    def __call__(self, epoch: int, **metrics: float) -> None:
        super().__call__(epoch, **metrics)
        now = time.perf_counter()
        self._progress(self._seed, epoch, self.epochs[-1], now - self._last)
        self._last = now


def full_recipe(space: str, task: str) -> str | None:
    """The name of a task's longest recipe, the last of its dict; None for a user's own task."""
    return next(reversed(list(recipes_of(space, task))), None)


def retrain(
    store: Store,
    search: Search,
    child: Child,
    *,
    recipe: str | None,
    options: Sequence[str],
    seeds: Sequence[int],
    artefacts: Artefacts,
    progress: Progress,
    diverged: Callable[[int, str], None],
    data: str | None = None,
    on_spec: Callable[[Spec], None] = lambda spec: None,
    on_data: Callable[[DataSummary], None] | None = None,
) -> list[Training]:
    """Trains a child once for every seed. Trainings that are already in the store are not repeated.

    An interrupted training continues from its last checkpoint when it is requested again.

    Args:
        recipe: its name; None for the longest one.
        options: single constants of the recipe, for example `epochs=30`.
        artefacts: where checkpoints are stored.
        progress: called after each epoch.
        diverged: called with each seed whose training diverges, and the reason. Nothing is stored for it.
        data: the present place of the search's data, as `npz:PATH` or `text:PATH`.
        on_spec: called with the child's spec before the training.
        on_data: called before the first training with a summary of the data, if the task has one.

    Returns:
        The trainings in the store for these seeds, in their order.

    Raises:
        ValueError: the recipe, an option or the task does not fit, or every seed diverges.
    """
    changes = task_options(options)
    base = _options_of_user_task(search)
    described_recipe = {"recipe": recipe or full_recipe(search.space, search.task), "options": base | changes}
    chosen = described_recipe | {"options": _reading(search) | base | changes}
    experiment = load_experiment(search, store=store, data=data, **chosen)
    task = experiment.task
    spec = recorded_child(store, search, experiment.space, child).spec
    on_spec(as_spec(spec))
    settings = completed(search.settings)
    settings["task"] = {**settings["task"], **chosen}
    settings["early_stop"] = "none"
    check_task_options(changes, settings, task, spec)
    files = [(settings[group]["file"] or {}).get("sha256") for group in ("space", "task")]
    fingerprint = settings["task"].get("fingerprint")
    described = [described_recipe, task.describe(), settings["compute"], files, fingerprint]
    hashes = {_recipe_hash(described)}  # the hash of 0.1.0, which includes the path of the data
    if fingerprint is not None:
        described[1] = {**task.describe(), "data": kind_of(search.task)}
    recipe_hash = _recipe_hash(described)
    hashes.add(recipe_hash)
    done = {training.seed: training for training in store.trainings(child.id) if training.recipe_hash in hashes}
    if on_data is not None and not done.keys() >= set(seeds) and (summary := task.data_summary()) is not None:
        on_data(summary)
    for seed in seeds:
        if seed in done:
            continue
        identity = identity_of(child.tokens, seed, described)
        checkpoint = artefacts.checkpoint(child.number, identity, training=f"train-{recipe_hash}-{seed}")
        began = time.perf_counter()
        try:
            outcome = task.evaluate(spec, seed=seed, report=TrainReport(seed, progress, checkpoint))
        except DivergedError as error:
            checkpoint.remove()
            diverged(seed, str(error))
            continue
        metrics = dict(outcome.metrics)
        weights: Mapping[str, np.ndarray] = outcome.weights or {}
        if weights and task.has_model(spec):
            metrics |= task.test(task.model(spec, weights), spec)
        training = Training(
            child_id=child.id,
            recipe_hash=recipe_hash,
            seed=seed,
            recipe=chosen,
            reward=outcome.reward,
            metrics=metrics,
            seconds=time.perf_counter() - began,
            finished=0.0,  # the store sets it by its own clock
            ending=outcome.ending,
        )
        store.keep_training(training, blobs.pack(weights))
        checkpoint.remove()
        done[seed] = training
    trained = [done[seed] for seed in seeds if seed in done]
    if not trained:
        raise ValueError(
            f"Child {child.number} of {search.name!r} diverges with this recipe; use a lower learning rate, for "
            "example --set learning_rate=0.01."
        )
    return trained


def _recipe_hash(described: Sequence[Any]) -> str:
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()[:16]


def _options_of_user_task(search: Search) -> dict[str, Any]:
    """The options of a user's own task, which has no recipes; none for another task."""
    settings = search.settings["task"]
    return {} if recipes_of(search.space, search.task) else dict(settings["options"])


def _reading(search: Search) -> dict[str, Any]:
    """The constants by which the search reads its data."""
    task = load_experiment(search).task
    constants = task.constants() or {}
    return {name: constants[name] for name in task.reading_options}
