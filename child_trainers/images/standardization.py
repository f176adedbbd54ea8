"""Standardization of images, as a Keras layer and as source. Keras is imported only when the layer is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

WHITE = 255.0  # the highest value after rescaling
SAMPLE = 4096  # images from which the typical standard deviation is estimated
MOST_DEVIATIONS = 64.0  # typical standard deviations that the values may span; values beyond are outliers
LEAST_RANGE = 1e-30  # the smallest range that float32 can rescale
LAYER_SOURCE = "layers.LayerNormalization(axis=[1, 2, 3], center=False, scale=False, epsilon=0.01)"


class Brightness(NamedTuple):
    """The range of the values of a data set's images."""

    low: float
    high: float

    @property
    def scaling(self) -> tuple[float, float]:
        """Factor and offset that rescale the values to 0 to 255."""
        factor = WHITE / (self.high - self.low) if self.high - self.low > LEAST_RANGE else 1.0
        return factor, -self.low * factor


def brightness_of(images: np.ndarray) -> Brightness:
    """The range of these images (count, height, width, channels): from the lowest to the highest value. If outliers
    make this too wide, the range is MOST_DEVIATIONS typical standard deviations around the typical mean.

    The range is equivariant: scaling or shifting all images scales or shifts it.
    """
    low, high = float(images.min()), float(images.max())
    step = -(-len(images) // SAMPLE)
    sample = images[::step].astype(np.float64).reshape(len(images[::step]), -1)
    deviations, means = sample.std(axis=1), sample.mean(axis=1)
    varied = deviations > 0
    if not varied.any():
        return Brightness(low, high)
    span = MOST_DEVIATIONS * float(np.median(deviations[varied]))
    if high - low <= span:
        return Brightness(low, high)
    middle = float(np.median(means[varied]))
    return Brightness(middle - span / 2, middle + span / 2)


def standardization_source(brightness: Brightness | None) -> str:
    """`standardization` as the source of a Keras expression. A test compares their values."""
    if not _is_scaled(brightness):
        return LAYER_SOURCE
    factor, offset = brightness.scaling  # type: ignore[union-attr]
    return f"keras.Sequential([layers.Rescaling({factor!r}, offset={offset!r}), {LAYER_SOURCE}])"


def standardization(input_shape: Sequence[int], brightness: Brightness | None = None) -> keras.layers.Layer:
    """Subtracts each image's mean and divides by its standard deviation, over all its pixels and channels.

    The layers are plain Keras, so an exported model that starts with them does not need automl.

    Args:
        input_shape: (height, width, channels).
        brightness: the range of the values, which are first rescaled from it to 0 to 255; None for built-in data, which
            are not rescaled.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 4.1 ("whitening").
    """
    import keras

    # epsilon: a blank image must not divide by zero; 0.01 is far below the variance of any real one (0 to 255 squared).
    layer = keras.layers.LayerNormalization(
        axis=[1, 2, 3], center=False, scale=False, epsilon=0.01, dtype="float32", name="standardization"
    )
    if _is_scaled(brightness):
        factor, offset = brightness.scaling  # type: ignore[union-attr]
        rescaling = keras.layers.Rescaling(factor, offset=offset, dtype="float32", name="brightness")
        layer = keras.Sequential([rescaling, layer], name="preprocessing")
    layer.build((None, *input_shape))
    return layer


def _is_scaled(brightness: Brightness | None) -> bool:
    return brightness is not None and brightness.scaling != (1.0, 0.0)
