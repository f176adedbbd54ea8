"""Rebuilds the model of a stored child with its weights, and checks that an exported model reaches the same metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.task import Task
from automl.db.records import Child, Search, State, StoreError, Training
from automl.db.store import Store, training_kind
from automl.stored import in_workdir, load_experiment, recorded_child
from automl.usage import Usage, own_classes

if TYPE_CHECKING:
    import keras


class ExportError(ValueError):
    """A child cannot be exported in this way. The message is one sentence with the way out."""


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """A child to export.

    Attributes:
        source: the weights to export, as of `export_child`.
        data: the present place of the search's data; None if they have not moved.
    """

    store: Store
    search: Search
    child: Child
    source: str | None
    data: str | None = None

    def trained(self, *, numeric_format: str | None = None) -> TrainedModel:
        """Builds the model with its weights.

        Args:
            numeric_format: the name of the format, if it cannot represent texts.

        Raises:
            ExportError: the child has no model, no weights or not this format.
            StoreError: the stored weights are damaged or do not fit the model.
        """
        child = self.child
        training = self._best_training()
        if training is None:
            kind, metrics, changes = "search", child.metrics or {}, {}
        else:
            kind = training_kind(training.recipe_hash, training.seed)
            metrics, changes = training.metrics, training.recipe
        experiment = load_experiment(self.search, store=self.store, data=self.data, **changes)
        if self.data is not None:
            experiment.task.prepare()  # refuses other data than the search's
        spec = recorded_child(self.store, self.search, experiment.space, child).spec
        if not experiment.task.has_model(spec):
            raise ExportError(f"The task {self.search.task} keeps no models; export its children as json.")
        if numeric_format is not None and experiment.task.reads_words:
            raise ExportError(
                f"The model reads words, which {numeric_format} cannot look up; export it as savedmodel or keras."
            )
        weights = self.store.weights(child.id, kind)
        if weights is None:
            raise ExportError(
                f"No weights are stored for child {child.number} of {self.search.name!r}: a search keeps those of its "
                f"best {self.search.settings['keep']} children (--keep). Train it again with: automl train "
                f"{self.search.name} --child {child.number}"
            )
        try:
            model = experiment.task.model(spec, weights)
        except DataError as error:
            raise ExportError(
                f"The model of child {child.number} cannot be built without the data of the search: {error}"
            ) from error
        except ValueError as error:
            raise StoreError(f"The stored weights do not fit child {child.number}: {error}") from error
        where = "the search" if training is None else f"training again with seed {training.seed}"
        return TrainedModel(model, spec, experiment.task, metrics[experiment.task.metric], where)

    def _best_training(self) -> Training | None:
        trainings = [] if self.source == "search" else self.store.trainings(self.child.id)
        if self.source == "train" and not trainings:
            raise ExportError(
                f"Child {self.child.number} of {self.search.name!r} was not trained again; do so with: automl train "
                f"{self.search.name} --child {self.child.number}"
            )
        return max(trainings, key=lambda training: training.reward, default=None)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its weights.

    Attributes:
        stored: the task's metric that was measured with these weights.
        where: what produced the weights, for messages.
    """

    model: keras.Model
    spec: object
    task: Task
    stored: float
    where: str

    def usage(self, format: str) -> Usage:
        """How to use a file of this model in a format."""
        own = own_classes(self.model)
        named = [kind for kind in own if kind.__name__ != "TreeCell"]
        source = self.task.source(self.spec) if format == "keras" and len(named) < len(own) else None
        return Usage(format, self.model, self.task.columns(), source.text if source else "", tuple(named))

    def check(self, exported: Callable[..., Any]) -> str:
        """Measures an exported model, which maps raw inputs to logits, on the validation data; returns a note.

        Raises:
            ExportError: its metric is not the stored one.
        """
        metric = self.task.metric.replace("val_", "validation ")
        try:
            measured = self.task.validate(exported, self.spec)[self.task.metric]
        except DataError as error:
            return f"its {metric} should be {self.stored:.4f}; it was not checked ({str(error).rstrip('.')})"
        if not self.task.same(measured, self.stored):
            raise ExportError(
                f"The exported model has {metric} {measured:.4f} where {self.stored:.4f} is stored; nothing "
                "was written. Do the data or the versions of packages differ from those of the search?"
            )
        return f"{metric} {measured:.4f}, as in {self.where} ({self.stored:.4f})"


def model_of(store: Store, search: Search, child: Child) -> keras.Model:
    """The child's Keras model with its best stored weights, from raw input to logits. Raises ExportError."""
    with in_workdir(search):
        return ExportRequest(store, search, child, None).trained().model


def find_child(store: Store, search: Search, number: int | None) -> Child:
    """The trained child of this number, or the best. Raises ExportError."""
    if number is None:
        top = store.top(search.id, 1)
        if not top:
            raise ExportError(f"No child of {search.name!r} is trained yet; go on with: automl resume {search.name}")
        return top[0]
    children = store.children(search.id, number=number)
    if not children:
        raise ExportError(f"{search.name!r} has no child {number}; see automl top {search.name}.")
    if children[0].state != State.TRAINED:
        raise ExportError(f"Child {number} of {search.name!r} is {children[0].state}, not trained; see automl top.")
    return children[0]
