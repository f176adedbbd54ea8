"""Convolutional networks with skip connections: Zoph & Le 2017 (arXiv:1611.01578), sections 3.1, 3.3 and 4.1."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.decisions import Choice, Decision, Links

STRIDES = (1, 2, 3)  # the paper's second experiment


def convnet(
    *,
    depths: Sequence[int] = (6, 8, 10, 12, 14, 16, 18, 20),
    filter_heights: Sequence[int] = (1, 3, 5, 7),
    filter_widths: Sequence[int] = (1, 3, 5, 7),
    num_filters: Sequence[int] = (24, 36, 48, 64),
    strides: bool = False,
    skips: bool = True,
    pooling: Sequence[int] = (),
) -> Generator[Decision, Any, ConvNet]:
    """Yields the decisions of one network, layer by layer in the paper's order, and returns its `ConvNet`.

    Args:
        depths: numbers of convolutional layers. The paper has no such decision: it increases the depth during the
            search, which `depth_schedule` does by forcing this decision.
        filter_heights: pixels.
        filter_widths: pixels.
        num_filters: output channels of a layer.
        strides: whether to predict a stride of 1, 2 or 3 for height and for width. Otherwise both are 1.
        skips: whether any subset of the earlier layers can feed a layer. Otherwise only the previous layer does.
        pooling: indices, from 0, of layers that are followed by a 2 x 2 max pooling of stride 2, as in the paper's
            third experiment. Indices beyond a network's depth are ignored.

    Raises:
        ValueError: an argument has an invalid value. The first step of the generator raises it.
    """
    depths = _positive_numbers("depths", depths)
    filter_heights = _positive_numbers("filter_heights", filter_heights)
    filter_widths = _positive_numbers("filter_widths", filter_widths)
    num_filters = _positive_numbers("num_filters", num_filters)
    pooling = _layer_indices("pooling", pooling)
    _check_switch("strides", strides)
    _check_switch("skips", skips)

    depth = yield Choice("depth", depths, kind="depth")
    layers = []
    for index in range(depth):
        name = f"layer{index}"
        filter_height = yield Choice(f"{name}/filter_height", filter_heights, kind="filter_height")
        filter_width = yield Choice(f"{name}/filter_width", filter_widths, kind="filter_width")
        stride_height = stride_width = 1
        if strides:
            stride_height = yield Choice(f"{name}/stride_height", STRIDES, kind="stride_height")
            stride_width = yield Choice(f"{name}/stride_width", STRIDES, kind="stride_width")
        filters = yield Choice(f"{name}/num_filters", num_filters, kind="num_filters")
        inputs = (index - 1,) if index else ()
        if skips:
            inputs = yield Links(f"{name}/inputs", count=index, kind="inputs")
        layers.append(
            ConvLayer(filter_height, filter_width, filters, inputs, stride_height, stride_width, pool=index in pooling)
        )
    return ConvNet(tuple(layers))


PRESETS: dict[str, dict[str, Any]] = {
    "small": {  # children that one machine trains in minutes
        "depths": (3, 4, 5, 6),
        "filter_heights": (1, 3, 5),
        "filter_widths": (1, 3, 5),
        "num_filters": (8, 12, 16, 24),
        "pooling": (1, 3),
    },
    "paper": {  # the first experiment of section 4.1
        "depths": (6, 8, 10, 12, 14, 16, 18, 20),
        "filter_heights": (1, 3, 5, 7),
        "filter_widths": (1, 3, 5, 7),
        "num_filters": (24, 36, 48, 64),
    },
}


def depth_schedule(number: int, *, start: int = 6, step: int = 2, every: int = 1600, last: int = 20) -> int:
    """Number of layers of the child of this number: 6, and 2 more after every 1,600 children, up to 20.

    Source: Zoph & Le 2017, section 4.1. The paper does not state the last depth; 12,800 children reach 20.
    """
    return min(start + step * (number // every), last)


def _force_depth(number: int) -> dict[str, Any]:
    return {"depth": depth_schedule(number)}


SCHEDULES: Mapping[str, Callable[[int], Mapping[str, Any]]] = {  # option values by decision, forced by child number
    "depth": _force_depth,
}


def _positive_numbers(name: str, values: Any) -> tuple[int, ...]:
    if not _are_numbers(values, at_least=1) or not values:
        raise ValueError(f"{name} is {values!r}; it must be a list of at least one whole number, each 1 or more.")
    return tuple(values)


def _layer_indices(name: str, values: Any) -> tuple[int, ...]:
    if not _are_numbers(values, at_least=0):
        raise ValueError(f"{name} is {values!r}; it must be a list of layer indices, each a whole number from 0.")
    return tuple(values)


def _are_numbers(values: Any, at_least: int) -> bool:
    # Not isinstance: True is an int, and JSON has booleans.
    return isinstance(values, list | tuple) and all(type(value) is int and value >= at_least for value in values)


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):  # Python would take the string "false" as true
        raise ValueError(f"{name} is {value!r}; it must be true or false.")
