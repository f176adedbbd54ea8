"""Draws a convolutional network, the image at the top, as a graph for Graphviz."""

from __future__ import annotations

from automl.search_spaces.convnet.layers import ConvLayer, ConvLayers
from automl.search_spaces.drawing import PLAIN, SKIP, edge, node


def statements(net: ConvLayers) -> list[str]:
    """Nodes for convolutions and poolings, and edges for their inputs; skip connections have a colour."""
    drawn = [node("image", "image", attributes=PLAIN)]
    for index, layer in enumerate(net.layers):
        drawn.append(node(f"layer{index}", *_lines(index, layer)))
        if layer.pool:
            drawn += [node(f"pool{index}", "max pooling 2 x 2"), edge(f"layer{index}", f"pool{index}", "weight=10")]
        if not layer.inputs:
            drawn.append(edge("image", f"layer{index}", "weight=10" if index == 0 else SKIP))
        drawn += [_read(net, source, f"layer{index}", index) for source in layer.inputs]
    drawn.append(node("average", "average over height and width"))
    drawn += [_read(net, source, "average", len(net.layers)) for source in net.dangling]
    drawn += [node("logits", "logits", attributes=PLAIN), edge("average", "logits")]
    return drawn


def _lines(index: int, layer: ConvLayer) -> list[str]:
    lines = [
        f"{index}: convolution {layer.filter_height} x {layer.filter_width}, {layer.num_filters} filters",
    ]
    if (layer.stride_height, layer.stride_width) != (1, 1):
        lines.append(f"stride {layer.stride_height} x {layer.stride_width}")
    if len(layer.inputs) > 1:
        lines.append(f"concatenates {', '.join(map(str, layer.inputs))}")
    return lines


def _read(net: ConvLayers, source: int, reader: str, index: int) -> str:
    output = f"pool{source}" if net.layers[source].pool else f"layer{source}"
    return edge(output, reader, "weight=10" if index - source == 1 else SKIP)
