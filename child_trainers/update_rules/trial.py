"""Trials, of which a comparison of optimizers consists: one network, one optimizer, one learning rate."""

from __future__ import annotations

import dataclasses
import math
import pkgutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.recipes import COMPARED_TEXT, RECIPES, LanguageRecipe, Recipe
from automl.child_trainers.registry import TASKS, kind_of
from automl.child_trainers.task import Record
from automl.child_trainers.text.task import LanguageModeling
from automl.child_trainers.update_rules.reference_networks import NETWORKS, ReferenceNetwork
from automl.child_trainers.user_files import UserFile
from automl.search_spaces.names import validate_choice
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.spec import Json
from automl.search_spaces.update_rule.expression import RuleError, drops_of, with_places
from automl.search_spaces.update_rule.named import RULES
from automl.search_spaces.update_rule.spec import SharedMaskRule, UpdateRule
from automl.search_spaces.views import read_spec

if TYPE_CHECKING:
    import keras

LSTM_NETWORK = "lstm"
ONE_MASK = " (one mask for all drops)"  # suffix of the text of a rule from a search of automl 0.1.0


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a comparison.

    Attributes:
        task: the name of a built-in task.
        recipe: the constants of training; the learning rate among them is not used.
        network: a name in NETWORKS or `FILE.py:FUNCTION` for images, `lstm` for text.
        optimizer: see `make_optimizer`.
        rate: the learning rate at the first step; it then follows the recipe's schedule.
        unseen: train on the last training images, which a search on the first images has not seen.
        tested: whether the metric on test data is computed, too.
        fingerprints: of the data and files that these names do not determine. A stored result of a trial with other
            fingerprints is not used.
    """

    task: str
    recipe: Mapping[str, Any]
    network: str
    optimizer: str
    rate: float
    seed: int
    data_dir: str | None = None
    unseen: bool = False
    tested: bool = True
    fingerprints: tuple[str, ...] = ()


def run(trial: Trial) -> dict[str, Any]:
    """Trains the network and returns its results by name.

    These are the metric of each epoch (`curve`), the `best` of them, the test metric of the same epoch if `tested` and
    there are test data, and `seconds`. If training diverges, `diverged` replaces the best and the test metric.
    """
    began = time.perf_counter()
    task = make_task(trial.task, trial.recipe, data_dir=trial.data_dir, unseen=trial.unseen)
    record = Record()
    try:
        if isinstance(task, ImageClassification):
            result = _train_images(task, trial, record)
        else:
            result = _train_text(task, trial, record)
    except DivergedError:
        result = {"diverged": True}
    curve = [metrics[task.metric] for metrics in record.epochs]
    return {**result, "curve": curve, "seconds": time.perf_counter() - began}


def kind_of_task(name: str) -> type[ImageClassification] | type[LanguageModeling]:
    """The class of a built-in task."""
    kind: type[ImageClassification] | type[LanguageModeling] = pkgutil.resolve_name(TASKS[kind_of(name)])
    return kind


def make_task(
    name: str, recipe: Mapping[str, Any], *, data_dir: str | None, unseen: bool
) -> ImageClassification | LanguageModeling:
    """The task on which optimizers are compared. Raises ValueError if a constant or the data are wrong."""
    kind = kind_of_task(name)
    folder = None if data_dir is None else Path(data_dir)
    if issubclass(kind, ImageClassification):
        return kind(name, Recipe(**recipe), data_dir=folder, last=unseen)
    return kind(name, LanguageRecipe(**recipe), data_dir=folder)


def _train_images(task: ImageClassification, trial: Trial, record: Record) -> dict[str, float]:
    from automl.child_trainers.images.networks import KerasNetwork, build_model
    from automl.child_trainers.images.training import batches, train
    from automl.child_trainers.task import fresh_start

    network = network_of(trial.network)
    fresh_start(trial.seed)
    made = KerasNetwork(build_model(network, *task.shapes))
    _, steps_per_epoch = batches(len(task.data.x_train), task.recipe.batch_size)
    steps = task.recipe.epochs * steps_per_epoch
    optimizer = make_optimizer(trial.optimizer, _image_schedule(task.recipe, trial.rate, steps), steps, trial.seed)
    outcome = train(made, task.device_data, task.recipe, seed=trial.seed, report=record, optimizer=optimizer)
    tested = task.test(task.model(network, dict(outcome.weights or {}))) if trial.tested else {}
    return {"best": outcome.metrics[task.metric]} | tested


def _train_text(task: LanguageModeling, trial: Trial, record: Record) -> dict[str, float]:
    from automl.child_trainers.text.model import LanguageModel
    from automl.child_trainers.text.training import steps_per_epoch, train_language_model

    recipe = task.recipe
    model = LanguageModel(LSTM(), len(task.data.vocabulary), task.units(LSTM()), recipe, seed=trial.seed)
    steps = steps_per_epoch(task.device_data, recipe)
    schedule = _text_schedule(recipe, trial.rate, steps)
    optimizer = make_optimizer(trial.optimizer, schedule, recipe.epochs * steps, trial.seed)
    outcome = train_language_model(model, task.device_data, recipe, seed=trial.seed, report=record, optimizer=optimizer)
    tested = task.test(task.model(LSTM(), dict(outcome.weights or {})), LSTM()) if trial.tested else {}
    return {"best": outcome.metrics[task.metric]} | tested


def network_of(name: str) -> ReferenceNetwork:
    """A network for images by name, or the user's function `(input_shape, num_classes)`.

    Raises:
        ValueError, UserFileError: there is no such network.
    """
    if UserFile.is_reference(name):
        return ReferenceNetwork(name, UserFile.read(name).load())
    if name not in NETWORKS:
        raise ValueError(
            f"There is no network called {name!r} for images; there is {', '.join(NETWORKS)}, or FILE.py:FUNCTION."
        )
    return ReferenceNetwork(name, NETWORKS[name])


def make_optimizer(text: str, rate: Any, decay_steps: int, seed: int) -> keras.optimizers.Optimizer:
    """The optimizer that a text names: an update rule (`powersign`), a Keras class (`AdamW`), or a rule's expression.

    Args:
        rate: a learning rate, or a Keras schedule.
        decay_steps: the number of steps of the training, on which the decays of a rule depend.

    Raises:
        ValueError: the text is none of these.
    """
    kinds = _keras_optimizers()
    if text in kinds:
        return kinds[text](learning_rate=rate)
    try:
        rule = RULES[text] if text in RULES else _rule(text)
    except RuleError:
        if text.isidentifier():  # a mistyped name rather than an expression
            validate_choice("optimizer", text, [*RULES, *kinds])
        raise
    return rule.optimizer(learning_rate=rate, decay_steps=decay_steps, seed=seed)


def rule_name(rule: UpdateRule) -> str:
    """The text from which `make_optimizer` makes the rule."""
    return f"{rule}{'' if rule.has_own_masks or num_drops(rule) < 2 else ONE_MASK}"


def rule_names(search: str, space: str, specs: Sequence[Json], versions: Mapping[str, int]) -> list[str]:
    """The texts of the stored rules of a search.

    Args:
        search: its name.
        versions: the behaviour of the search.

    Raises:
        ValueError: the search has no trained update rules.
    """
    rules = [read_spec(spec, space) for spec in specs]
    if not rules or not all(isinstance(rule, UpdateRule) for rule in rules):
        raise ValueError(f"{search!r} has no trained update rules; name a search with --space update-rule.")
    return [rule_name(rule.with_behaviour(versions)) for rule in rules if isinstance(rule, UpdateRule)]


def meaning_of(optimizer: str) -> tuple[str, ...]:
    """A fingerprint of rules with several drops: for the same text, automl 0.1.0 trained a rule with one mask."""
    try:
        several = optimizer not in RULES and num_drops(UpdateRule.parse(optimizer)) > 1
    except RuleError:
        return ()
    return ("a mask of its own for every drop",) if several else ()


def num_drops(rule: UpdateRule) -> int:
    return len(list(drops_of(with_places(rule.expression()))))


def _rule(text: str) -> UpdateRule:
    rule = UpdateRule.parse(text.removesuffix(ONE_MASK))
    return SharedMaskRule(rule.groups) if text.endswith(ONE_MASK) else rule


def _keras_optimizers() -> dict[str, type[keras.optimizers.Optimizer]]:
    """The optimizer classes of Keras by name, without the base class and the one that wraps another optimizer."""
    import keras

    members = {name: getattr(keras.optimizers, name) for name in dir(keras.optimizers)}
    excluded = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    return {
        name: kind
        for name, kind in members.items()
        if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer) and kind not in excluded
    }


def default_recipe(task: str) -> dict[str, Any]:
    """The constants of a task's first recipe; for text `COMPARED_TEXT`. Raises KeyError if there is no such task."""
    if issubclass(kind_of_task(task), LanguageModeling):
        return COMPARED_TEXT
    return next(iter(RECIPES[kind_of(task)].values()))


def _image_schedule(recipe: Recipe, rate: float, steps: int) -> Any:
    """The recipe's schedule (see `images.training.learning_rate`) from another initial rate."""
    from keras.optimizers import schedules

    if recipe.schedule == "cosine":
        return schedules.CosineDecay(rate, steps)
    last = [math.ceil(share * steps) - 1 for share in (0.5, 0.75)]  # the last step at each rate
    return schedules.PiecewiseConstantDecay(last, [rate, rate / 10, rate / 100])


def _text_schedule(recipe: LanguageRecipe, rate: float, steps_per_epoch: int) -> Any:
    from keras.optimizers import schedules

    later = range(max(1, recipe.steady_epochs), recipe.epochs)
    if not later:
        return rate
    decays = [max(0, epoch + 1 - recipe.steady_epochs) for epoch in (later[0] - 1, *later)]
    return schedules.PiecewiseConstantDecay(
        [epoch * steps_per_epoch - 1 for epoch in later], [rate * recipe.decay**times for times in decays]
    )
