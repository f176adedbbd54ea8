"""The training loop that all kinds of networks share: compiled epochs, their seconds, checkpoints, the best epoch."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from automl.child_trainers.devices import trains_on_gpu
from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.task import Objective, Report
from automl.child_trainers.training.checkpoints import INTERVAL as CHECKPOINT_SECONDS
from automl.child_trainers.training.early_stop import EarlyStopError

STEPS_BETWEEN_CHECKS = 16  # of the loss of a training on a GPU


class Variables(Protocol):
    """The variables of a network in training, by name and in a fixed order."""

    @property
    def trainable(self) -> MutableMapping[str, tf.Variable]:
        """Variables that gradients change."""

    @property
    def moving(self) -> Mapping[str, tf.Variable]:
        """Weights of the model that change without gradients, for example moving averages."""

    @property
    def state(self) -> Mapping[str, tf.Variable]:
        """Variables that a resumed training needs and a model does not, for example the random state of dropout."""


class Trained(NamedTuple):
    """A child after its last epoch."""

    history: list[dict[str, float]]  # metrics of each epoch
    epoch: int  # the best one, from 1
    weights: dict[str, np.ndarray]  # those after the best epoch


class Trainer(abc.ABC):
    """Trains one child. Each compiled function is traced once.

    Args:
        network: the child's variables.
        slots: the optimizer's variables, by name.
        steps_per_epoch: number of training steps in an epoch.

    Attributes:
        network, steps_per_epoch: as given; training changes the variables.
        traces: number of traces so far.
        seconds: spent in each phase: trace, train, validate.
    """

    def __init__(self, network: Variables, slots: Mapping[str, tf.Variable], steps_per_epoch: int) -> None:
        self.network = network
        self.steps_per_epoch = steps_per_epoch
        self._slots = slots
        with tf.device("CPU"):  # read by another thread, which must not wait for a GPU
            self._steps_done = tf.Variable(0, dtype=tf.int64)
        self.traces = 0
        self.seconds: dict[str, float] = defaultdict(float)
        self._epoch = self._traced(self._train_epoch, tf.TensorSpec((), tf.int32))

    def train_epoch(self, epoch: int) -> float:
        """Trains one epoch, numbered from 0, and returns its mean loss in nats.

        Raises:
            DivergedError: the loss of a step is not finite. On a processor, no step is trained after that step.
        """
        train = self._epoch()
        with self._phase("train"):
            steps, total = (value.numpy() for value in train(tf.constant(epoch)))
        if not math.isfinite(total):
            raise DivergedError(f"The training loss of step {steps} of epoch {epoch + 1} is {total}.")
        return float(total) / self.steps_per_epoch

    @abc.abstractmethod
    def _train_epoch(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The compiled epoch. It ends early where a loss is not finite; see `_run_steps`.

        Args:
            epoch: int32 scalar, from 0.

        Returns:
            The number of steps trained, and the sum of their losses.
        """

    @abc.abstractmethod
    def metrics(self) -> dict[str, float]:
        """The network's metrics on the validation data, by name."""

    def _run_steps(
        self, train: Callable[..., tuple[tf.Tensor, ...]], state: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """All steps of an epoch, in a compiled function.

        A processor looks at the loss after every step. A GPU would wait each time until the value has reached the host,
        so there it is looked at after every `STEPS_BETWEEN_CHECKS` steps.

        Args:
            train: trains a step, given its number within the epoch and a state. Returns the loss of the step, and the
                state after it.
            state: before the first step.

        Returns:
            See `_train_epoch`.
        """
        count = self.steps_per_epoch
        together = STEPS_BETWEEN_CHECKS if trains_on_gpu() else 1

        def one(step: tf.Tensor, total: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss, *after = train(step, *state)
            return step + 1, total + loss, *after

        # Not a Python loop: AutoGraph, which would convert it, does nothing under Python 3.13.
        def several(step: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
            end = tf.minimum(step + together, count)
            after: tuple[tf.Tensor, ...] = tf.while_loop(lambda step, *_: step < end, one, (step, *others))
            return after

        def body(step: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
            after = one(step, *others) if together == 1 else several(step, *others)
            with tf.control_dependencies([after[1]]):
                self._steps_done.assign_add(tf.cast(after[0] - step, tf.int64))
            return after

        def continues(step: tf.Tensor, total: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
            return tf.logical_and(step < count, tf.math.is_finite(total))

        step, total, *_ = tf.while_loop(continues, body, (tf.constant(0), tf.constant(0.0), *state))
        return step, total

    def steps_done(self) -> int:
        """Number of training steps so far, also within an epoch. May be called from any thread."""
        return int(self._steps_done.numpy())

    def arrays(self, best_weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The state of the training for a checkpoint, by name; `restore` takes it."""
        arrays = {name: variable.numpy() for name, variable in self._state_variables().items()}
        return arrays | {f"best/{name}": array for name, array in best_weights.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sets the state that `arrays` returned. Returns the best weights."""
        for name, variable in self._state_variables().items():
            variable.assign(arrays[name])
        return {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}

    def _state_variables(self) -> dict[str, tf.Variable]:
        groups = {"now": weight_variables(self.network), "slot": self._slots, "state": self.network.state}
        named = {
            f"{group}/{name}": variable for group, variables in groups.items() for name, variable in variables.items()
        }
        return named | {"steps": self._steps_done}

    def _traced(self, function: Callable[..., Any], *signature: tf.TensorSpec) -> Callable[[], Any]:
        """Returns a getter of the compiled function. The first call of the getter traces it."""

        def trace() -> Any:
            self.traces += 1
            with self._phase("trace"):
                return tf.function(function, autograph=False).get_concrete_function(*signature)

        return functools.cache(trace)

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with graphs_as_traced():
                yield
        finally:
            self.seconds[name] += time.perf_counter() - began


@contextlib.contextmanager
def graphs_as_traced() -> Iterator[None]:
    """Context manager that turns TensorFlow's graph optimizer off on a machine without GPUs.

    The graph optimizer takes a quarter of a second for a small network and more than a second for a cell, and its
    rewrites do not make these graphs faster. On a GPU it chooses tensor layouts, so there it stays on. Graphs of a
    population are optimized, since that happens once in a worker's life.
    """
    options = tf.config.optimizer
    before = options.get_experimental_options().get("disable_meta_optimizer", False)
    if not trains_on_gpu():
        options.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        options.set_experimental_options({"disable_meta_optimizer": before})


def weight_variables(network: Variables) -> dict[str, tf.Variable]:
    """The variables that a model of the network needs, by name."""
    return {**network.trainable, **network.moving}


def weights_of(network: Variables) -> dict[str, np.ndarray]:
    """The values of these variables, by name."""
    return {name: variable.numpy() for name, variable in weight_variables(network).items()}


def train_epochs(trainer: Trainer, report: Report, objective: Objective, *, counting_from: int = 1) -> Trained:
    """Trains all epochs of the objective. Resumes from the child's checkpoint, if there is one.

    Args:
        counting_from: the first epoch, numbered from 1, that can be the best. Of equally good epochs the first counts.

    Raises:
        DivergedError: a loss or a metric is not finite.
        EarlyStopError: `report` stops the child after an epoch.
    """
    report.follow(trainer.steps_done)
    best_weights: dict[str, np.ndarray] = {}
    history: list[dict[str, float]] = []
    saved = time.perf_counter()
    checkpoint = report.checkpoint
    if checkpoint is not None and (loaded := checkpoint.load()) is not None:
        arrays, values = loaded
        history = values["history"]
        best_weights = trainer.restore(arrays)
        report.restore(history)

    def best_epoch() -> int:
        sign = 1.0 if objective.maximize else -1.0
        counting = range(counting_from, len(history) + 1)
        return max(counting, key=lambda epoch: (sign * history[epoch - 1][objective.metric], -epoch), default=0)

    for epoch in range(len(history) + 1, objective.epochs + 1):
        train_loss = trainer.train_epoch(epoch - 1)
        history.append(trainer.metrics() | {"loss": train_loss})
        if best_epoch() == epoch:
            best_weights = weights_of(trainer.network)
        due = epoch < objective.epochs and time.perf_counter() - saved > CHECKPOINT_SECONDS
        if checkpoint is not None and due:
            checkpoint.save(trainer.arrays(best_weights), {"history": history})
            saved = time.perf_counter()
        try:
            report(epoch, **history[-1])
        except EarlyStopError as stop:
            if stop.paused and checkpoint is not None:
                checkpoint.save(trainer.arrays(best_weights), {"history": history})
            raise
    return Trained(history, best_epoch(), best_weights)
