"""The preprocessing of images, as a layer and as source; Keras is imported only when the layer is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

# `whitening` as a Keras expression; a test holds the two to the same numbers.
WHITENING_SOURCE = "layers.LayerNormalization(axis=[1, 2, 3], center=False, scale=False, epsilon=0.01)"


def whitening(input_shape: Sequence[int]) -> keras.layers.Layer:
    """Subtracts each image's mean and divides by its standard deviation, over all its pixels and channels.

    A plain Keras layer, so that an exported model that starts with it needs nothing of ours.
    Source: Zoph & Le 2017 (arXiv:1611.01578), section 4.1 ("whitening").
    """
    import keras

    # epsilon: a blank image must not divide by zero; 0.01 is far below the variance of any real one (0 to 255 squared).
    layer = keras.layers.LayerNormalization(
        axis=[1, 2, 3], center=False, scale=False, epsilon=0.01, dtype="float32", name="whitening"
    )
    layer.build((None, *input_shape))
    return layer
