"""Parameters and FLOPs of a convolutional network, counted without Keras."""

from __future__ import annotations

import dataclasses

from automl.search_spaces.convnet.layers import ConvLayers
from automl.search_spaces.convnet.shapes import Shape, net_shapes


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        params: the number of all values that Keras stores, equal to `count_params()`. It includes the two moving
            averages per channel of batch normalization, which are not trained.
        flops: FLOPs of the forward pass for one image: 2 for each multiply-add of the convolutions and the dense layer.
            Multiplications by the zeros of padding count, as is usual.
    """

    params: int
    flops: int


def count(net: ConvLayers, input_shape: Shape, num_classes: int) -> Cost:
    """Counts parameters and FLOPs for images of `input_shape` (height, width, channels)."""
    shapes = net_shapes(net, input_shape)
    params = flops = 0
    for layer, shape in zip(net.layers, shapes.layers, strict=True):
        weights = layer.filter_height * layer.filter_width * shape.read[2] * layer.num_filters
        params += weights + 4 * layer.num_filters  # batch norm: scale, offset, moving mean and variance
        flops += 2 * weights * shape.convolved[0] * shape.convolved[1]
    weights = shapes.features[2] * num_classes
    return Cost(params + weights + num_classes, flops + 2 * weights)
