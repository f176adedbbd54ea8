"""Writes a convolutional network as a readable Python file that needs only Keras."""

from __future__ import annotations

from collections.abc import Sequence

from automl.search_spaces.convnet.cost import count
from automl.search_spaces.convnet.layers import ConvLayer, ConvLayers
from automl.search_spaces.convnet.shapes import Shape
from automl.search_spaces.script import QUIET_START

LINE_LENGTH = 120

IMPORTS = """\
import keras
from keras import layers
"""

CONV = '''\
def conv(x, num_filters, filter_size, strides=(1, 1)):
    """Convolution, batch normalization and ReLU; sizes and strides are (height, width)."""
    x = layers.Conv2D(num_filters, filter_size, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x)
'''

POOL = '''\
def pool(x):
    """Halves height and width."""
    return layers.MaxPooling2D(2, padding="same")(x)
'''

JOIN = '''\
def join(*maps):
    """Concatenates in depth; smaller maps get zeros at bottom and right up to the largest height and width."""
    height = max(x.shape[1] for x in maps)
    width = max(x.shape[2] for x in maps)
    padded = []
    for x in maps:
        rows, columns = height - x.shape[1], width - x.shape[2]
        padded.append(layers.ZeroPadding2D(((0, rows), (0, columns)))(x) if rows or columns else x)
    return layers.Concatenate()(padded)
'''

MAIN = """\
if __name__ == "__main__":
    build().summary()
"""


def source(net: ConvLayers, input_shape: Shape, num_classes: int, preprocessing: str = "") -> str:
    """The text of a Python file whose `build()` returns the model of `build.build`, with its weights in the same order.

    Args:
        preprocessing: a Keras expression of a layer without weights, which is applied to the image first.
    """
    height, width, channels = input_shape
    cost = count(net, input_shape, num_classes)
    docstring = (
        f'"""A convolutional network that automl found, of depth {len(net.layers)}.\n\n'
        f"Takes images of height {height}, width {width} and {channels} channels; returns logits of {num_classes} "
        f'classes.\n{cost.params:,} parameters, {cost.flops:,} FLOPs per image.\n"""\n'
    )
    body = ["def build():", f'    image = keras.Input(({height}, {width}, {channels}), name="image")']
    if preprocessing:
        body.append(f"    prepared = {preprocessing}(image)")
    image = "prepared" if preprocessing else "image"
    for index, layer in enumerate(net.layers):
        body += _layer(index, layer, image)
    body += _joined("features", net.dangling)
    last = f"layer{net.dangling[0]}" if len(net.dangling) == 1 else "features"
    body.append(f"    features = layers.GlobalAveragePooling2D()({last})")
    body.append(f'    logits = layers.Dense({num_classes}, name="logits")(features)')
    body.append("    return keras.Model(image, logits)")

    functions = [CONV]
    if any(layer.pool for layer in net.layers):
        functions.append(POOL)
    if any(len(indices) > 1 for indices in (net.dangling, *(layer.inputs for layer in net.layers))):
        functions.append(JOIN)
    return "\n\n".join(["\n".join((docstring, QUIET_START, IMPORTS)), *functions, "\n".join(body) + "\n", MAIN])


def _layer(index: int, layer: ConvLayer, image: str) -> list[str]:
    lines = _joined(f"inputs{index}", layer.inputs)
    if len(layer.inputs) > 1:
        read = f"inputs{index}"
    elif layer.inputs:
        read = f"layer{layer.inputs[0]}"
    else:
        read = image
    call = f"conv({read}, {layer.num_filters}, ({layer.filter_height}, {layer.filter_width})"
    if (layer.stride_height, layer.stride_width) != (1, 1):
        call += f", strides=({layer.stride_height}, {layer.stride_width})"
    call += ")"
    lines.append(f"    layer{index} = {f'pool({call})' if layer.pool else call}")
    return lines


def _joined(name: str, indices: Sequence[int]) -> list[str]:
    """The statement that joins several layers, broken as ruff's formatter breaks it."""
    if len(indices) < 2:
        return []
    arguments = [f"layer{index}" for index in indices]
    line = f"    {name} = join({', '.join(arguments)})"
    if len(line) <= LINE_LENGTH:
        return [line]
    inner = " " * 8 + ", ".join(arguments)
    if len(inner) <= LINE_LENGTH:
        return [f"    {name} = join(", inner, "    )"]
    return [f"    {name} = join(", *(f"        {argument}," for argument in arguments), "    )"]
