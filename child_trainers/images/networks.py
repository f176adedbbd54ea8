"""What the trainer trains: a network's variables by name, and its two forward passes."""

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
        """The pass of a training step; it may change `moving`."""

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """The pass of validation; it changes nothing."""


class KerasNetwork:
    """Any Keras model as a network: that of a space which has no `network` of its own.

    Keras names repeat within a process, so weights are named by their place.
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
    spec: Buildable, input_shape: tuple[int, ...], num_classes: int, *, seed: int, compute: Compute
) -> tuple[Network, Compute]:
    """A spec's own `network(input_shape, num_classes, seed=…, precision=…, xla=…)`, or the Keras model that it builds,
    which is trained in float32 and without XLA; and how it is to be trained.

    Raises:
        ValueError: the model's outputs are not the logits of so many classes.
    """
    # Clearing Keras takes a fifth of a second.
    fresh_start(seed, keras=not isinstance(spec, Trainable))
    if isinstance(spec, Trainable):
        network: Network = spec.network(
            input_shape, num_classes, seed=seed, precision=compute.precision, xla=compute.xla
        )
        return network, compute
    return KerasNetwork(build_model(spec, input_shape, num_classes)), FLOAT32


def build_model(spec: Buildable, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """The Keras model that a spec or a network of the user's own builds.

    Raises:
        ValueError: its outputs are not the logits of so many classes.
    """
    model: keras.Model = spec.build(input_shape, num_classes)
    if model.output_shape != (None, num_classes):
        raise ValueError(
            f"The model that was built has outputs of shape {model.output_shape}; they must be the logits of "
            f"{num_classes} classes, of shape {(None, num_classes)}."
        )
    return model


def place_name(index: int) -> str:
    """The name of the weight at a place."""
    return f"weight{index:04d}"


def set_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Gives a Keras model the weights of the network that was trained in its place.

    Raises:
        ValueError: they are not those of such a model.
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
