"""The shape of every map in a network, without building it. Only this file has the rules for strides and padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from automl.search_spaces.convnet.layers import ConvLayers

Shape = tuple[int, int, int]  # height, width, channels


@dataclasses.dataclass(frozen=True)
class LayerShapes:
    """Shapes in one layer, in the order of computation.

    Attributes:
        read: shape of the image, or of the layer's inputs, padded and concatenated.
        convolved: shape of the convolution's output.
        output: shape after the pooling, if there is one.
    """

    read: Shape
    convolved: Shape
    output: Shape


@dataclasses.dataclass(frozen=True)
class NetShapes:
    """Shapes in all layers, and `features`: the shape of the dangling outputs, padded and concatenated."""

    layers: tuple[LayerShapes, ...]
    features: Shape


def net_shapes(net: ConvLayers, input_shape: Shape) -> NetShapes:
    """All shapes in a network. With 'same' padding a stride s turns n pixels into ceil(n / s); so does pooling, with
    s = 2."""
    layers: list[LayerShapes] = []
    for layer in net.layers:
        read = joined(layers[source].output for source in layer.inputs) if layer.inputs else input_shape
        convolved = (_ceil(read[0], layer.stride_height), _ceil(read[1], layer.stride_width), layer.num_filters)
        output = (_ceil(convolved[0], 2), _ceil(convolved[1], 2), layer.num_filters) if layer.pool else convolved
        layers.append(LayerShapes(read, convolved, output))
    return NetShapes(tuple(layers), joined(layers[index].output for index in net.dangling))


def joined(shapes: Iterable[Shape]) -> Shape:
    """The shape of several maps, padded to the largest height and the largest width among them and concatenated in
    depth.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.3.
    """
    heights, widths, channels = zip(*shapes, strict=True)
    return max(heights), max(widths), sum(channels)


def _ceil(size: int, stride: int) -> int:
    return -(-size // stride)
