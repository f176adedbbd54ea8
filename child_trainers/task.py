"""What a child is trained on: the contract of a task."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """A fault of the search, not of a child: it must be fixed before more children are trained. The message is a
    sentence."""


class Report(Protocol):
    """Handed to `evaluate`; every call proves that the child lives.

    Attributes:
        checkpoint: where a long training keeps what it goes on from, or None.
    """

    checkpoint: Checkpoint | None

    def __call__(self, epoch: int, **metrics: float) -> None:
        """Writes the metrics of an epoch (1, 2, …). Raises DivergedError where one is not finite."""

    def restore(self, history: Sequence[Mapping[str, float]]) -> None:
        """Writes the metrics of epochs 1, 2, … of an earlier attempt again, without judging them."""

    def follow(self, steps_done: Callable[[], int]) -> None:
        """Takes a count of training steps, to be read from another thread between two epochs."""


class Record:
    """A report of a training that belongs to no search: it keeps what it is told.

    Attributes:
        checkpoint: see `Report`.
        epochs: the metrics of each, in order.
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
    """A child to be trained beside others."""

    spec: object
    seed: int
    report: Report


@dataclasses.dataclass(frozen=True)
class Objective:
    """The metric that a task reports every epoch and that tells good children from bad ones; `epochs` is how many there
    are of a child that is trained to its end."""

    metric: str
    maximize: bool
    epochs: int


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What training needs of the machine.

    Attributes:
        devices: GPUs that train one child together, where the machine has any.
        exclusive: whether a child must have these devices to itself, for example because its reward is a time. Without
            GPUs it then has the machine to itself: one worker.
    """

    devices: int = 1
    exclusive: bool = False


class Source(NamedTuple):
    """A child as a Python file, and what that is (a part of a sentence)."""

    text: str
    description: str


class Task(abc.ABC):
    """Trains children and says what they are worth.

    One object serves many children, one after the other. `evaluate` may raise anything: the child then fails with the
    fault of that exception. A search needs `evaluate` alone. A task that returns weights has `has_model`, `model` and
    `validate`, so that its children can be exported as models, and trained again with a result on test data (`test`).

    A spec is whatever the space returns; a task asks for capabilities of `search_spaces.spec` with `isinstance`.

    Attributes:
        floor: the reward of a failed child, or None where the task has no natural lowest reward.
        metric: what tells a trained child's quality, among its metrics.
        reward_words: a description of the reward if no metric is named.
        fixed_options: constants of the recipe without which rewards would no longer compare.
        reading_options: those that say how the data are read, which a child that is trained again keeps.
        reads_words: whether an exported model takes texts instead of numbers.
        ignores_compute: where the precision, XLA and devices of the search have no effect, what does not heed them (a
            part of a sentence); None where they have.
        requirements: what it needs of the machine.
        population: how many children are trained together, in one call of `evaluate_together`.
        fingerprint: of data that the user's file holds, or None where the task's name says which data they are.
        brightness: the lowest and the highest value of the images of a user's file, if the images are rescaled by
            them.
        objective: what early stopping goes by, or None where children cannot be stopped early.
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
    requirements: Requirements = Requirements()
    fingerprint: str | None = None
    brightness: Sequence[float] | None = None

    @abc.abstractmethod
    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome: ...

    def evaluate_together(self, children: Sequence[Assignment]) -> Iterator[tuple[int, Outcome | Exception]]:
        """Trains several children at a time, each as if it were alone.

        Yields what became of each, by its place among `children`, as soon as it is known; an exception for one that
        failed. What is raised instead fails all that were not yielded yet.
        """
        for index, child in enumerate(children):
            yield index, self.evaluate(child.spec, seed=child.seed, report=child.report)

    def prepare(self) -> None:  # noqa: B027 - most tasks need nothing
        """Loads and checks what children need; the coordinator calls it before workers start. May raise ValueError."""

    def reading(self) -> dict[str, Any] | None:
        """JSON values that are needed to build a model from stored weights without the data; None for none."""
        return None

    def warm_up(self) -> None:
        """Imports and loads what is slow; a worker calls it before its first child."""
        self.prepare()

    def check(self, spec: object) -> None:  # noqa: B027 - the user's function takes any
        """Raises ValueError where this task cannot train specs like this one; called once, with one of the space."""

    def check_goal(self) -> None:  # noqa: B027 - what a function of the user's own reports is not known before it runs
        """Raises ValueError where --minimize or --maximize names no metric that this task reports."""

    def count(self, spec: object) -> tuple[int, int] | None:
        """Parameters of a child and FLOPs for one input of it, or None where they cannot be told."""
        return None

    def data_summary(self) -> DataSummary | None:
        """How the data were read, or None for a task that reads its own; may load them, and raise ValueError."""
        return None

    def constants(self) -> dict[str, Any] | None:
        """Those of the recipe, as JSON values; None where there is none."""
        return None

    def describe(self) -> dict[str, Any]:
        """What the user should know of how children are trained."""
        return {}

    def unused_options(self, spec: object) -> Mapping[str, str]:
        """The options of the task that have no effect on children like this one, and why: what follows "task.NAME has
        no effect" in a sentence."""
        return {}

    def has_model(self, spec: object) -> bool:
        """Whether `model` makes a Keras model of such a child."""
        return False

    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        """The child as a Keras model from raw inputs to logits, with the weights that `evaluate` returned.

        Raises:
            ValueError: the weights are those of another model.
            DataError: the model cannot be made without data that are missing.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no model of a {type(spec).__name__}.")

    def columns(self) -> str:
        """The meaning of the columns of the model's logits, for the user; "" where it is not known."""
        return ""

    def validate(self, model: Callable[..., Any], spec: object) -> dict[str, float]:
        """The metrics that `evaluate` stored for the child, `metric` among them, of any function like its model. Raises
        DataError where the data are missing."""
        raise NotImplementedError(f"{type(self).__name__} has models, so it needs a method validate(model, spec).")

    def same(self, found: float, stored: float) -> bool:
        """Whether `metric` of an exported model is that of its child, but for rounding."""
        return math.isclose(found, stored, rel_tol=1e-3)

    def test(self, model: Callable[..., Any], spec: object) -> dict[str, float]:
        """The metrics on test data, which no search ever reads; none where there are none."""
        return {}

    def source(self, spec: object, metrics: Mapping[str, Any] = NO_METRICS) -> Source | None:
        """The child as a Python file without weights; None where it cannot be written as one.

        Args:
            metrics: of the child.
        """
        if not isinstance(spec, HasOptimizerSource):
            return None
        rate = metrics.get("learning_rate")  # unknown for a rule that the screening test rejected
        if not isinstance(rate, float):
            rate = None  # a user's task may use the name for anything; only a number may get into source code
        known_rate = "" if rate is None else f"; its learning rate here was {rate:g}"
        return Source(spec.optimizer_source(rate), f"an optimizer for Keras, as readable source{known_rate}")


def fresh_start(seed: int, *, keras: bool = True) -> None:
    """Leaves nothing of the child before to this one, and seeds every global generator: a child trained third in a
    worker equals the same child alone.

    Keras is only touched where it is imported already. Not to touch it at all matters where children train beside the
    policy: clearing it makes TensorFlow prepare every compiled function again, which takes a second.
    """
    seed_basic(seed)
    if keras:
        seed_libraries(["keras"], seed)
