"""What training a child is, whatever it learns: compiled pieces, their seconds, checkpoints, the epoch that counts."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.task import Objective, Report
from automl.child_trainers.training.checkpoints import INTERVAL as CHECKPOINT_SECONDS
from automl.child_trainers.training.early_stop import EarlyStopError


class Variables(Protocol):
    """What a child consists of while it is trained: its variables by name, in a fixed order."""

    @property
    def trainable(self) -> MutableMapping[str, tf.Variable]:
        """Variables that gradients change."""

    @property
    def moving(self) -> Mapping[str, tf.Variable]:
        """Those that training changes otherwise, for example moving averages."""

    @property
    def state(self) -> Mapping[str, tf.Variable]:
        """What else a training goes on from and a model does not need, for example a dropout's random state."""


class Trained(NamedTuple):
    """A child after its last epoch."""

    history: list[dict[str, float]]  # metrics of each epoch
    epoch: int  # the one that counts, from 1
    weights: dict[str, np.ndarray]  # as they were then


class Trainer(abc.ABC):
    """One child's compiled pieces, each traced once.

    Args:
        network: the child's variables.
        slots: what the optimizer remembers beside them, by name.
        steps_per_epoch: training steps of an epoch.

    Attributes:
        network: as it is now.
        traces: how many there were so far.
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
            DivergedError: the loss of a step is not finite. No step is trained after that step.
        """
        train = self._epoch()
        with self._phase("train"):
            steps, total = (value.numpy() for value in train(tf.constant(epoch)))
        if not math.isfinite(total):
            raise DivergedError(f"The training loss of step {steps} of epoch {epoch + 1} is {total}.")
        return float(total) / self.steps_per_epoch

    @abc.abstractmethod
    def _train_epoch(self, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The compiled epoch. It ends early at the first loss that is not finite.

        Args:
            epoch: int32 scalar, from 0.

        Returns:
            The number of steps trained, and the sum of their losses.
        """

    @abc.abstractmethod
    def metrics(self) -> dict[str, float]:
        """What the network is worth on the validation data."""

    def steps_done(self) -> int:
        """Training steps so far, also in the middle of an epoch; may be called from any thread."""
        return int(self._steps_done.numpy())

    def arrays(self, best_weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All that training goes on from, for `restore`."""
        arrays = {name: variable.numpy() for name, variable in self._remembered().items()}
        return arrays | {f"best/{name}": array for name, array in best_weights.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Takes what `arrays` gave; returns the best weights."""
        for name, variable in self._remembered().items():
            variable.assign(arrays[name])
        return {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}

    def _remembered(self) -> dict[str, tf.Variable]:
        groups = {"now": weight_variables(self.network), "slot": self._slots, "state": self.network.state}
        named = {f"{group}/{name}": variable for group, found in groups.items() for name, variable in found.items()}
        return named | {"steps": self._steps_done}

    def _traced(self, function: Callable[..., Any], *signature: tf.TensorSpec) -> Callable[[], Any]:
        """Traces a function once, when it is first asked for."""

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
    """Within it, TensorFlow runs graphs on a processor without rewriting them first: that takes a quarter of a second
    for a small network and more than one for a cell, and what it finds in graphs like ours gains nothing. On a GPU it
    chooses layouts, and goes on. A population's graphs are rewritten: that is once in a worker's life."""
    options = tf.config.optimizer
    before = options.get_experimental_options().get("disable_meta_optimizer", False)
    if not tf.config.list_logical_devices("GPU"):
        options.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        options.set_experimental_options({"disable_meta_optimizer": before})


def weight_variables(network: Variables) -> dict[str, tf.Variable]:
    """All that a model of the network needs."""
    return {**network.trainable, **network.moving}


def weights_of(network: Variables) -> dict[str, np.ndarray]:
    """Every weight by name."""
    return {name: variable.numpy() for name, variable in weight_variables(network).items()}


def train_epochs(trainer: Trainer, report: Report, objective: Objective, *, counting_from: int = 1) -> Trained:
    """Trains all of the objective's epochs, from the child's checkpoint where there is one.

    The epoch that counts is the best of those from `counting_from` on, the first of equals.

    Raises:
        DivergedError, EarlyStopError.
    """
    report.follow(trainer.steps_done)
    best_weights: dict[str, np.ndarray] = {}
    history: list[dict[str, float]] = []
    saved = time.perf_counter()
    checkpoint = report.checkpoint
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        arrays, values = found
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
