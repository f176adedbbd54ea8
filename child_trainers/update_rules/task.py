"""Tasks of update rules, which are judged by how well a small network learns with them, on images or on text."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.devices import FLOAT32, Compute
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.outcome import Goal, Outcome, read_outcome
from automl.child_trainers.recipes import Recipe, RuleRecipe, RuleTextRecipe
from automl.child_trainers.task import Assignment, MoreChildren, Report, Task
from automl.child_trainers.text.task import LanguageModeling
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.update_rule.spec import UpdateRule

if TYPE_CHECKING:
    import keras

    from automl.child_trainers.update_rules.training import RuleTrainer

PRUNED_IMAGES = 0.05  # share of the range from the accuracy of a guess to 1
PRUNED_TEXT = 0.5  # times the perplexity of a guess


Network = TypeVar("Network", ImageClassification, LanguageModeling)


class RuleTask(Task, Generic[Network]):
    """Judges update rules: a sweep of learning rates, then a training at the best one.

    Args:
        name: of the data, as in the task of networks on the same data.
        recipe: the constants of the sweep and of the training.
        goal: `metric` as the reward, to be minimized or maximized; None for the task's reward.
        compute: not used; rules are judged in float32, which is as fast for networks of this size.
        data: the other arguments of `BuiltInTask`.

    Attributes:
        network: the task of networks whose data and metric are used.
    """

    network: Network
    floor = 0.0
    ignores_compute = "update rules, which are judged in float32 on one device"
    uses_tensorflow = True

    def __init__(
        self,
        name: str,
        recipe: Any,
        *,
        goal: Goal | None = None,
        compute: Compute = FLOAT32,
        **data: Any,
    ) -> None:
        self.network = self._network(name, recipe, **data)
        self.recipe = recipe
        self.population = recipe.population
        self.metric = self.network.metric
        self.fixed_options = ("rates", "epochs", "sweep_epochs", *self.network.fixed_options)
        self.reading_options = self.network.reading_options
        self.reads_words = self.network.reads_words
        self._goal = goal
        if goal is not None:
            if goal.metric != self.metric:
                raise ValueError(f"Update rules are judged by {self.metric} here; drop {goal}.")
            self.floor = None  # type: ignore[assignment]

    @property
    def fingerprint(self) -> str | None:  # type: ignore[override]
        return self.network.fingerprint

    @property
    def brightness(self) -> Sequence[float] | None:  # type: ignore[override]
        return self.network.brightness

    def reading(self) -> dict[str, Any] | None:
        return self.network.reading()

    def prepare(self) -> None:
        self.network.prepare()

    def warm_up(self) -> None:
        self.network.warm_up()

    def check(self, spec: object) -> None:
        if not isinstance(spec, UpdateRule):
            raise ValueError(
                f"Update rules are judged here, and this space makes {type(spec).__name__}; choose the space "
                "update-rule, or a task of your own."
            )

    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        ((_, ended),) = self.evaluate_together([Assignment(spec, seed, report)])
        if isinstance(ended, Exception):
            raise ended
        return ended

    def evaluate_together(self, children: Sequence[Assignment]) -> Iterator[tuple[int, Outcome | Exception]]:
        return self.evaluate_with_more(children, lambda: ())

    def evaluate_with_more(
        self, children: Sequence[Assignment], more: MoreChildren
    ) -> Iterator[tuple[int, Outcome | Exception]]:
        for index, ended in self._trainer.train(children, more):
            yield index, ended if isinstance(ended, Exception) else read_outcome(ended, self._goal)

    def data_summary(self) -> DataSummary:
        return self.network.data_summary()

    def validate(self, model: Callable[..., Any], spec: object = None) -> dict[str, float]:
        return self.network.validate(model, self._network_spec)

    def columns(self) -> str:
        return self.network.columns()

    def test(self, model: Callable[..., Any], spec: object = None) -> dict[str, float]:
        return self.network.test(model, self._network_spec)

    def same(self, found: float, stored: float) -> bool:
        return self.network.same(found, stored)

    def constants(self) -> dict[str, Any]:
        return dataclasses.asdict(self.recipe)

    def describe(self) -> dict[str, Any]:
        return {"data": self.network.name} | self.constants()

    @abc.abstractmethod
    def _network(self, name: str, recipe: Any, **data: Any) -> Network:
        """The task of networks on the same data."""

    @property
    @abc.abstractmethod
    def _network_spec(self) -> object:
        """The spec of the trained network, for the methods of `network`."""

    @functools.cached_property
    @abc.abstractmethod
    def _trainer(self) -> RuleTrainer: ...

    @property
    def _least_places(self) -> int:
        """Places for the sweeps of all rules of a claim."""
        return self.recipe.population * len(self.recipe.rates)

    def has_model(self, spec: object) -> bool:
        return True

    @abc.abstractmethod
    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        """The network that was trained with the rule, with its stored weights."""

    def unused_options(self, spec: object) -> Mapping[str, str]:
        return dict(self.recipe.unused_options())


class ImageRules(RuleTask[ImageClassification]):
    """Update rules judged by a convolutional network's accuracy; see `flat_networks.ConvChild`."""

    recipe_kind = RuleRecipe
    reward_words = "validation accuracy after the training at the best rate"

    def _network(self, name: str, recipe: RuleRecipe, **data: Any) -> ImageClassification:
        limits = Recipe(num_train=recipe.num_train, num_validation=recipe.num_validation)
        return ImageClassification(name, limits, **data)

    @functools.cached_property
    def _trainer(self) -> RuleTrainer:
        from automl.child_trainers.update_rules.flat_networks import ConvChild
        from automl.child_trainers.update_rules.grouped_networks import ConvChildren
        from automl.child_trainers.update_rules.populations import make_population
        from automl.child_trainers.update_rules.training import MetricSpec, RuleTrainer

        classes = self.network.shapes[1]
        child = ConvChild(self.network.device_data, classes, self.recipe.batch_size)
        pruned = pruned_accuracy(self.network.data.y_validation)
        metric = MetricSpec(self.metric, True, 0.0, pruned, lambda accuracy: accuracy)
        population = make_population(ConvChildren(child), self._least_places, xla=True)
        return RuleTrainer(child, population, metric, self.recipe)

    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        from automl.child_trainers.update_rules.flat_networks import keras_child

        return self.network.with_preprocessing(keras_child(*self.network.shapes, weights=weights))

    @property
    def _network_spec(self) -> object:
        return None


class TextRules(RuleTask[LanguageModeling]):
    """Update rules judged by the perplexity of an LSTM of one layer; the reward is 80 / perplexity^2."""

    recipe_kind = RuleTextRecipe
    reward_words = "80 / (validation perplexity)² after the training at the best rate"

    def _network(self, name: str, recipe: RuleTextRecipe, **data: Any) -> LanguageModeling:
        return LanguageModeling(name, recipe.of_language(), **data)

    @functools.cached_property
    def _trainer(self) -> RuleTrainer:
        from automl.child_trainers.text.model import LanguageModel
        from automl.child_trainers.text.training import reward_of
        from automl.child_trainers.update_rules.flat_networks import TextChild
        from automl.child_trainers.update_rules.grouped_text import TextChildren
        from automl.child_trainers.update_rules.populations import make_population
        from automl.child_trainers.update_rules.training import MetricSpec, RuleTrainer

        types = len(self.network.data.vocabulary)
        model = LanguageModel(LSTM(), types, self.recipe.units, self.network.recipe, seed=0)
        metric = MetricSpec(self.metric, False, types, PRUNED_TEXT * types, reward_of)
        child = TextChild(model, self.network.device_data)
        # XLA takes a minute to compile the recurrence.
        population = make_population(TextChildren(child), self._least_places, xla=False)
        return RuleTrainer(child, population, metric, self.recipe)

    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        model: keras.Model = self.network.model(self._network_spec, weights)
        return model

    @property
    def _network_spec(self) -> object:
        return LSTM()


def pruned_accuracy(labels: np.ndarray) -> float:
    """The accuracy up to which a rule is pruned: slightly above that of guessing the most frequent of these labels."""
    guess = float(np.bincount(labels).max()) / len(labels)
    return guess + PRUNED_IMAGES * (1.0 - guess)
