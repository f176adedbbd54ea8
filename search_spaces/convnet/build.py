"""Builds a convolutional network as a Keras model; the only file of the space that imports Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from automl.search_spaces.convnet.layers import ConvLayer, ConvLayers
from automl.search_spaces.convnet.shapes import Shape, net_shapes


def build(net: ConvLayers, input_shape: Shape, num_classes: int, *, batch_norm_momentum: float = 0.9) -> keras.Model:
    """An untrained model from images, (batch, height, width, channels), to logits, (batch, num_classes).

    The inputs of a layer are padded with zeros at bottom and right to one size and concatenated in depth. A layer
    without inputs reads the image. The outputs that no layer reads are joined in the same way, averaged over height and
    width (padding included) and classified by one dense layer without softmax. The image is not preprocessed.

    Source: Zoph & Le 2017 (arXiv:1611.01578), sections 3.3 and 4.1.

    Args:
        net: the network.
        input_shape: height, width, channels of an image.
        num_classes: number of logits.
        batch_norm_momentum: momentum of the moving averages. With Keras's default of 0.99 a model is worth evaluating
            only after some hundred steps; children are trained for fewer.
    """
    shapes = net_shapes(net, input_shape)
    image = keras.Input(input_shape, name="image")
    maps = _Maps()
    for index, (layer, shape) in enumerate(zip(net.layers, shapes.layers, strict=True)):
        name = f"layer{index}"
        x = maps.join(layer.inputs, shape.read, name) if layer.inputs else image
        maps.append(_conv_layer(x, layer, name, batch_norm_momentum))
    features = maps.join(net.dangling, shapes.features, "head")
    features = keras.layers.GlobalAveragePooling2D(name="head_average")(features)
    # float32 under every dtype policy, because a loss of bfloat16 logits loses digits.
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(features)
    return keras.Model(image, logits, name="convnet")


def _conv_layer(x: keras.KerasTensor, layer: ConvLayer, name: str, batch_norm_momentum: float) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        layer.num_filters,
        (layer.filter_height, layer.filter_width),
        strides=(layer.stride_height, layer.stride_width),
        padding="same",
        use_bias=False,  # batch normalization would subtract it again
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_norm")(x)
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.layers.MaxPooling2D(2, padding="same", name=f"{name}_pool")(x) if layer.pool else x


class _Maps:
    """Outputs of the layers so far. Each is padded only once per size, because every Keras layer takes time to build
    and to trace."""

    def __init__(self) -> None:
        self._outputs: list[keras.KerasTensor] = []
        self._padded: dict[tuple[int, int, int], keras.KerasTensor] = {}

    def append(self, output: keras.KerasTensor) -> None:
        self._outputs.append(output)

    def join(self, indices: Sequence[int], shape: Shape, name: str) -> keras.KerasTensor:
        """The outputs of these layers, padded to the height and width of `shape` and concatenated in depth."""
        height, width, _ = shape
        maps = [self._pad(index, height, width) for index in indices]
        return maps[0] if len(maps) == 1 else keras.layers.Concatenate(name=f"{name}_concat")(maps)

    def _pad(self, index: int, height: int, width: int) -> keras.KerasTensor:
        output = self._outputs[index]
        rows, columns = height - output.shape[1], width - output.shape[2]
        if rows == columns == 0:
            return output
        if (index, height, width) not in self._padded:
            pad = keras.layers.ZeroPadding2D(((0, rows), (0, columns)), name=f"layer{index}_pad_{height}x{width}")
            self._padded[index, height, width] = pad(output)
        return self._padded[index, height, width]
