"""Any Keras optimizer as what changes a network's weights in training."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from child_trainers.trainer import Variables


class KerasUpdate:
    """Applies a Keras optimizer to a network.

    An optimizer needs `keras.Variable`s. Where the network was made of plain TensorFlow variables, its trainable ones
    are replaced by those within Keras variables of the same values, so this is made before the network is traced.

    Attributes:
        slots: all that the optimizer remembers, by name.
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

    def apply(self, gradients: Mapping[str, tf.Tensor | tf.IndexedSlices]) -> None:
        """Changes every variable by its gradient; rows of a matrix count as the whole of it."""
        dense = [tf.convert_to_tensor(gradients[name]) for name in self._variables]
        self._optimizer.apply(dense, list(self._variables.values()))
