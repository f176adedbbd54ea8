"""Networks in training: variables by name, and two forward passes, one for training and one for validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from automl.child_trainers.devices import FLOAT32, Compute
from automl.child_trainers.task import fresh_start
from automl.child_trainers.training.trainer import Variables
from automl.search_spaces.spec import Buildable, Trainable


class Network(Variables, Protocol):
    """A classifier from images, float32 (batch, height, width, channels), to logits, float32 (batch, num_classes)."""

    def train_logits(self, images: tf.Tensor) -> tf.Tensor:
        """The forward pass of a training step. It may change `moving`."""

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """The forward pass of validation. It changes nothing."""


class KerasNetwork:
    """A Keras model as a network, for specs that can be built but are not `Trainable`.

    Keras names repeat within a process, so weights are named by their position.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        names = {id(variable): place_name(index) for index, variable in enumerate(model.weights)}
        self.keras_variables = {names[id(variable)]: variable for variable in model.trainable_variables}
        self.trainable = {name: variable.value for name, variable in self.keras_variables.items()}
        self.moving = {
            name: variable.value
            for name, variable in zip(names.values(), model.weights, strict=True)
            if name not in self.trainable
        }
        weights = {id(variable) for variable in model.weights}
        others = [variable for variable in model.variables if id(variable) not in weights]
        self.state = {place_name(index): variable.value for index, variable in enumerate(others)}

    def train_logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._model(images, training=True)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._model(images, training=False)


def make_network(
    spec: Buildable,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    seed: int,
    compute: Compute,
    may_end_in_softmax: bool = False,
) -> tuple[Network, Compute]:
    """Makes the network of a spec. Returns the network, and the settings with which it must be trained.

    A `Trainable` spec makes its own network. Of any other spec the Keras model is trained, in float32 and without XLA.

    Raises:
        ValueError: the outputs of the Keras model are not logits of `num_classes` classes; see `build_model`.
    """
    # Clearing Keras takes a fifth of a second.
    fresh_start(seed, keras=not isinstance(spec, Trainable))
    if isinstance(spec, Trainable):
        network: Network = spec.network(
            input_shape, num_classes, seed=seed, precision=compute.precision, xla=bool(compute.xla)
        )
        return network, compute
    model = build_model(spec, input_shape, num_classes, may_end_in_softmax=may_end_in_softmax)
    return KerasNetwork(model), FLOAT32


def build_model(
    spec: Buildable, input_shape: tuple[int, ...], num_classes: int, *, may_end_in_softmax: bool = False
) -> keras.Model:
    """The Keras model that a spec builds, or a network of the user's.

    Args:
        may_end_in_softmax: take the probabilities of such a model for logits. The loss then cannot fall below
            log(1 + (num_classes - 1) / e), which is 1.46 nats with 10 classes.

    Raises:
        ValueError: its outputs are not logits of `num_classes` classes.
    """
    model: keras.Model = spec.build(input_shape, num_classes)
    if model.output_shape != (None, num_classes):
        raise ValueError(
            f"The model that was built has outputs of shape {model.output_shape}; they must be the logits of "
            f"{num_classes} classes, of shape {(None, num_classes)}."
        )
    if not may_end_in_softmax and _ends_in_softmax(model):
        raise ValueError(
            "The model that was built ends in a softmax; its outputs must be logits, because the loss applies the "
            "softmax: leave it out of the last layer."
        )
    return model


def _ends_in_softmax(model: keras.Model) -> bool:
    last = model.outputs[0]._keras_history.operation  # of a `Sequential`, too
    if isinstance(last, keras.Model):
        return _ends_in_softmax(last)
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax


def place_name(index: int) -> str:
    """The name of the weight at this position in a list of weights."""
    return f"weight{index:04d}"


def set_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Sets a Keras model's weights to those of the network that was trained for it.

    Raises:
        ValueError: the weights are those of another model.
    """
    by_path = {variable.path: variable for variable in model.weights}
    if by_path.keys() == weights.keys():
        for path, variable in by_path.items():
            variable.assign(weights[path])
        return
    names = [place_name(index) for index in range(len(by_path))]
    if sorted(weights) != names:
        raise ValueError(f"weights of other names: {', '.join(sorted(weights)[:3])}, …")
    model.set_weights([weights[name] for name in names])
