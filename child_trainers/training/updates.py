"""Updates: how gradients change a network's weights at a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import keras
import tensorflow as tf

from automl.child_trainers.training.trainer import Variables

Gradients = Mapping[
    str, tf.Tensor | tf.IndexedSlices
]  # by the variable's name; `IndexedSlices` has gradients of some rows


class Update(Protocol):
    """A rule by which gradients change a network's trainable variables.

    Attributes:
        slots: the variables that it keeps from step to step, by name.
    """

    slots: dict[str, tf.Variable]

    def apply(self, gradients: Gradients, learning_rate: tf.Tensor) -> None:
        """Changes every variable by its gradient."""


class GradientDescent:
    """w' = w - rate * g. If a gradient has only some rows, the other rows are not touched."""

    def __init__(self, network: Variables) -> None:
        self._trainable = network.trainable
        self.slots: dict[str, tf.Variable] = {}

    def apply(self, gradients: Gradients, learning_rate: tf.Tensor) -> None:
        for name, gradient in gradients.items():
            variable = self._trainable[name]
            if isinstance(gradient, tf.IndexedSlices):
                variable.scatter_sub(tf.IndexedSlices(learning_rate * gradient.values, gradient.indices))
            else:
                variable.assign_sub(learning_rate * gradient)


class Nesterov:
    """v' = momentum * v - rate * g;  w' = w + momentum * v' - rate * g, in one operation.

    For training on several devices it must be constructed within the scope of their strategy.

    Source: Sutskever et al. 2013, section 2, in the form of Bengio et al. 2013 (arXiv:1212.0901), section 3.5.
    """

    def __init__(self, network: Variables, momentum: float) -> None:
        self._trainable = network.trainable
        self._momentum = momentum
        self._velocities = {name: tf.Variable(tf.zeros(old.shape)) for name, old in network.trainable.items()}
        self.slots = {f"velocity/{name}": velocity for name, velocity in self._velocities.items()}

    def apply(self, gradients: Gradients, learning_rate: tf.Tensor) -> None:
        momentum = tf.constant(self._momentum, tf.float32)  # one constant for all variables of the trace
        for name, gradient in gradients.items():
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=self._trainable[name].handle,
                accum=self._velocities[name].handle,
                lr=learning_rate,
                grad=gradient,
                momentum=momentum,
                use_nesterov=True,
            )


class KerasUpdate:
    """Applies a Keras optimizer, with its own learning rate, to a network.

    An optimizer needs `keras.Variable`s. If a network has plain TensorFlow variables, the constructor wraps copies of
    the trainable ones and puts them in their place. So it must be called before the network is traced.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, network: Variables) -> None:
        self._optimizer = optimizer
        self._variables: dict[str, keras.Variable] = getattr(network, "keras_variables", {})
        if not self._variables:
            for name, variable in network.trainable.items():
                self._variables[name] = keras.Variable(variable.numpy(), name=name.replace("/", "_"))
                network.trainable[name] = self._variables[name].value
        optimizer.build(list(self._variables.values()))
        self.slots: dict[str, tf.Variable] = {
            f"optimizer{index}": variable.value for index, variable in enumerate(optimizer.variables)
        }

    def apply(self, gradients: Gradients, learning_rate: tf.Tensor) -> None:
        """Changes each variable; gradients of rows are made dense. `learning_rate` is not used."""
        dense = [tf.convert_to_tensor(gradients[name]) for name in self._variables]
        self._optimizer.apply(dense, list(self._variables.values()))
