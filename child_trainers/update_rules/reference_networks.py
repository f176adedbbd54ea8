"""Hand-designed networks, on which optimizers are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

BLOCKS = 3  # residual blocks of each of three sizes


@dataclasses.dataclass(frozen=True)
class ReferenceNetwork:
    """A network by name: `build(input_shape, num_classes)` gives its Keras model, from images to logits."""

    name: str
    build: Callable[[tuple[int, ...], int], keras.Model]


def small(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """The network that update rules train in a search; see `flat_networks.ConvChild`."""
    from automl.child_trainers.update_rules.flat_networks import keras_child

    return keras_child(input_shape, num_classes)


def resnet20(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A residual network of 20 layers for small images: a convolution of 16 filters, then nine blocks of two
    convolutions of 16, 32 and 64 filters. Where the size changes, the shortcut is subsampled and padded with zeros.

    Source: He et al. 2016 (arXiv:1512.03385), section 4.2, option A.
    """
    import keras
    from keras import layers

    def convolve(x: Any, filters: int, stride: int = 1) -> Any:
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    def block(x: Any, filters: int, stride: int) -> Any:
        y = layers.ReLU()(convolve(x, filters, stride))
        y = convolve(y, filters)
        if stride > 1:
            x = layers.AveragePooling2D(1, strides=stride)(x)
        if (missing := filters - x.shape[-1]) > 0:
            x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))
        return layers.ReLU()(layers.Add()([x, y]))

    image = keras.Input(input_shape)
    x = layers.ReLU()(convolve(image, 16))
    for size, filters in enumerate((16, 32, 64)):
        for index in range(BLOCKS):
            x = block(x, filters, 2 if size and not index else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(num_classes)(x), name="resnet20")


NETWORKS: dict[str, Callable[[tuple[int, ...], int], keras.Model]] = {"small": small, "resnet20": resnet20}
