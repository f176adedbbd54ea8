"""The contract of a task: data, how a child is trained on them, and how its metrics become a reward."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.outcome import Outcome, reported
from automl.child_trainers.seeding import seed_basic, seed_libraries
from automl.child_trainers.training.checkpoints import Checkpoint
from automl.search_spaces.spec import HasOptimizerSource

if TYPE_CHECKING:
    import keras

NO_METRICS: Mapping[str, Any] = {}


class SearchFaultError(Exception):
    """The search itself is at fault, not a child. The fault must be fixed before more children are trained. The message
    is one sentence."""


class Report(Protocol):
    """Receives the progress of a training from `evaluate`. Every call shows that the child is alive.

    Attributes:
        checkpoint: where a long training stores the state from which it can resume, or None.
    """

    checkpoint: Checkpoint | None

    def __call__(self, epoch: int, **metrics: float) -> None:
        """Writes the metrics of an epoch (1, 2, …).

        Raises:
            DivergedError: a metric is not finite.
            InvalidResultError: a metric is not a plain value.
        """

    def restore(self, history: Sequence[Mapping[str, float]]) -> None:
        """Writes the metrics of epochs 1, 2, … of an earlier attempt again. The pruner does not judge them again."""

    def follow(self, steps_done: Callable[[], int]) -> None:
        """Registers a function that returns the number of training steps done. Another thread calls it between two
        reports."""


class Record:
    """A `Report` for a training outside a search: it keeps the metrics in memory.

    Attributes:
        checkpoint: see `Report`.
        epochs: the metrics of each epoch, in order.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        self.checkpoint = checkpoint
        self.epochs: list[dict[str, float]] = []

    def __call__(self, epoch: int, **metrics: float) -> None:
        self.epochs.append(reported(epoch, metrics))

    def restore(self, history: Sequence[Mapping[str, float]]) -> None:
        self.epochs += [dict(metrics) for metrics in history]

    def follow(self, steps_done: Callable[[], int]) -> None:
        pass


class Assignment(NamedTuple):
    """A child to train in a population; see `Task.evaluate_together`."""

    spec: object
    seed: int
    report: Report


MoreChildren = Callable[[], Sequence[Assignment]]  # returns the children of another population, none if none is ready


@dataclasses.dataclass(frozen=True)
class Objective:
    """The metric by which early stopping compares children.

    Attributes:
        metric: its name; the task reports it every epoch.
        maximize: whether a higher value is better.
        epochs: the number of epochs of a child that is trained to its end.
    """

    metric: str
    maximize: bool
    epochs: int


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What training needs of the machine.

    Attributes:
        devices: the number of GPUs that train one child together, if the machine has any.
        exclusive: whether a child must not share its devices, for example because its reward is a time. Without GPUs
            the child does not share the machine: there is one worker.
    """

    devices: int = 1
    exclusive: bool = False


class Source(NamedTuple):
    """A child as the text of a Python file, with a description of the file (a part of a sentence)."""

    text: str
    description: str


class Task(abc.ABC):
    """Trains children and computes their rewards.

    One object trains many children, one after the other. `evaluate` may raise any exception: the child then fails with
    the fault of that exception (`outcome.fault_of`). A search needs only `evaluate`. A task that returns weights also
    has `has_model`, `model` and `validate`, so that its children can be exported as models, and trained again with a
    result on test data (`test`).

    A spec is any value that the space returns. A task checks for the capabilities of `search_spaces.spec` with
    `isinstance`.

    Attributes:
        floor: the reward of a failed child, or None if the task has no natural lowest reward.
        metric: the name of the metric that measures the quality of a trained child.
        reward_words: a description of the reward if no metric is named.
        fixed_options: constants of the recipe that must not change, because rewards would not be comparable.
        reading_options: constants of the recipe that define how the data are read; a child that is trained again keeps
            them.
        reads_words: whether an exported model takes texts instead of numbers.
        ignores_compute: a description of what ignores the search's precision, XLA and devices (a part of a sentence);
            None if they have an effect.
        uses_tensorflow: whether automl trains its children with TensorFlow, which must see the GPUs of its worker and
            keeps to a limit of their memory. It is not known what a child of another task needs of a GPU.
        requirements: what training needs of the machine.
        population: the number of children that one call of `evaluate_together` trains.
        fingerprint: the fingerprint of the data in a user's file; None if the task's name identifies the data.
        brightness: the lowest and the highest value of the images of a user's file, if the images are rescaled by
            them.
        objective: the metric for early stopping, or None if children cannot be stopped early.
        noiseless: the metric that is the reward without its noise, if the task knows it.
    """

    floor: float | None = None
    metric: str = "reward"
    reward_words: ClassVar[str] = "what the task returns"
    fixed_options: tuple[str, ...] = ()
    reading_options: tuple[str, ...] = ()
    reads_words: bool = False
    objective: Objective | None = None
    population: int = 1
    ignores_compute: ClassVar[str | None] = "a task of your own, which does its own training"
    uses_tensorflow: ClassVar[bool] = False
    requirements: Requirements = Requirements()
    fingerprint: str | None = None
    brightness: Sequence[float] | None = None
    noiseless: ClassVar[str | None] = None

    @abc.abstractmethod
    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        """Trains a child and returns its outcome."""

    def evaluate_together(self, children: Sequence[Assignment]) -> Iterator[tuple[int, Outcome | Exception]]:
        """Trains a population. Each child has the result that `evaluate` would give.

        Yields:
            The index of a child in `children` with its outcome, or with an exception if the child failed, as soon as
            it is known. An exception that is raised fails all children that were not yielded yet.
        """
        for index, child in enumerate(children):
            yield index, self.evaluate(child.spec, seed=child.seed, report=child.report)

    def evaluate_with_more(
        self, children: Sequence[Assignment], more: MoreChildren
    ) -> Iterator[tuple[int, Outcome | Exception]]:
        """Trains a population as `evaluate_together` does, and more children while the device has room for them.

        Args:
            more: called during the training, when there is room. The indices of the children that it returns follow
                those of the earlier ones.
        """
        return self.evaluate_together(children)

    def prepare(self) -> None:  # noqa: B027 - most tasks need no preparation
        """Loads and checks the data. The coordinator calls it before workers start. May raise ValueError."""

    def reading(self) -> dict[str, Any] | None:
        """The JSON values that `model` needs in place of the data, such as the shape of an image; None for none."""
        return None

    def warm_up(self) -> None:
        """Does slow imports and loads the data. A worker calls it before its first child."""
        self.prepare()

    def check(self, spec: object) -> None:  # noqa: B027 - the user's function takes any spec
        """Raises ValueError if this task cannot train specs of this kind. Called once, with a spec of the space."""

    def admits(self, spec: object) -> bool:
        """Whether a spec may be a child. The loop refuses one that is not admitted before it is trained, and draws
        again."""
        return True

    def listed(self) -> Iterable[Mapping[str, Any]] | None:
        """The children that it admits, as values by the name of the decision; None if it admits all, or does not know
        them."""
        return None

    def optimum(self, spec: object, admits: Callable[[Mapping[str, Any]], bool] | None = None) -> float | None:
        """The highest reward of all children of this kind, without noise; None if it is not known.

        Args:
            admits: whether the search's narrowing leaves the child with these values, by the name of the decision; None
                if nothing is narrowed.
        """
        return None

    def check_goal(self) -> None:  # noqa: B027 - the metrics of a user's function are not known before it runs
        """Raises ValueError if --minimize or --maximize names no metric that this task reports."""

    def count(self, spec: object) -> tuple[int, int] | None:
        """Parameters of a child and its FLOPs for one input, or None if they are not known."""
        return None

    def data_summary(self) -> DataSummary | None:
        """How the data were read, or None for a task that reads its own. May load the data and raise ValueError."""
        return None

    def constants(self) -> dict[str, Any] | None:
        """The constants of the recipe as JSON values; None if the task has no recipe."""
        return None

    def describe(self) -> dict[str, Any]:
        """The settings of training, for the user: values by name."""
        return {}

    def unused_options(self, spec: object) -> Mapping[str, str]:
        """The options of the task that have no effect on children of this kind, with the reason: the words that follow
        "task.NAME has no effect" in a sentence."""
        return {}

    def has_model(self, spec: object) -> bool:
        """Whether `model` makes a Keras model of children of this kind."""
        return False

    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        """The child as a Keras model that maps raw inputs to logits, with the weights that `evaluate` returned.

        Raises:
            ValueError: the weights are those of another model.
            DataError: the model needs data that are missing.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no model of a {type(spec).__name__}.")

    def columns(self) -> str:
        """The meaning of the columns of the model's logits, for the user; "" if it is not known."""
        return ""

    def validate(self, model: Callable[..., Any], spec: object) -> dict[str, float]:
        """The metrics of a model on the validation data: those that `evaluate` stored for the child, with `metric`.

        Args:
            model: a function with the inputs and outputs of `model(spec, weights)`.

        Raises:
            DataError: the data are missing.
        """
        raise NotImplementedError(f"{type(self).__name__} has models, so it needs a method validate(model, spec).")

    def same(self, found: float, stored: float) -> bool:
        """Whether `metric` of an exported model equals the stored one of its child, except for rounding."""
        return math.isclose(found, stored, rel_tol=1e-3)

    def test(self, model: Callable[..., Any], spec: object) -> dict[str, float]:
        """The metrics on test data, which no search reads; empty if there are no test data."""
        return {}

    def source(self, spec: object, metrics: Mapping[str, Any] = NO_METRICS) -> Source | None:
        """The child as a Python file without weights; None if it cannot be written as source code.

        Args:
            metrics: the metrics of the child.
        """
        if not isinstance(spec, HasOptimizerSource):
            return None
        rate = metrics.get("learning_rate")  # unknown for a rule that the screening test rejected
        if not isinstance(rate, float):
            rate = None  # a user's task may give this name to any value; only a number may be written into source code
        known_rate = "" if rate is None else f"; its learning rate here was {rate:g}"
        return Source(spec.optimizer_source(rate), f"an optimizer for Keras, as readable source{known_rate}")


def fresh_start(seed: int, *, keras: bool = True) -> None:
    """Clears the state of the previous child and seeds every global generator, so that a child trained third in a
    worker equals the same child trained alone.

    Args:
        keras: whether to clear and seed Keras, if it is imported. Pass False if children train in the process of the
            policy: clearing makes TensorFlow prepare every compiled function again, which takes a second.
    """
    seed_basic(seed)
    if keras:
        seed_libraries(["keras"], seed)
