"""What the convolutional space decodes to: a network as plain data, importing no Keras until it is built."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from search_spaces.convnet.canonical import canonical_order

if TYPE_CHECKING:
    import keras

    from search_spaces.convnet.cost import Cost
    from search_spaces.convnet.network import ConvNetwork


@dataclasses.dataclass(frozen=True)
class ConvLayer:
    """A convolution with 'same' padding, batch normalization and ReLU.

    Attributes:
        filter_height: pixels.
        filter_width: pixels.
        num_filters: output channels.
        inputs: indices of earlier layers, ascending, whose outputs are concatenated in depth; none means the image.
        stride_height: pixels.
        stride_width: pixels.
        pool: a 2 x 2 max pooling of stride 2 with 'same' padding follows.
    """

    filter_height: int
    filter_width: int
    num_filters: int
    inputs: tuple[int, ...]
    stride_height: int = 1
    stride_width: int = 1
    pool: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))  # a spec read from JSON has a list
        for name in ("filter_height", "filter_width", "num_filters", "stride_height", "stride_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a convolutional layer is {getattr(self, name)}; it must be 1 or more.")

    @property
    def label(self) -> tuple[int, ...]:
        """All that the layer is, without its place in the network."""
        return (
            self.filter_height,
            self.filter_width,
            self.num_filters,
            self.stride_height,
            self.stride_width,
            int(self.pool),
        )


@dataclasses.dataclass(frozen=True)
class ConvNet:
    """A convolutional network: each layer reads earlier ones, and what no layer reads goes to the classifier.

    `input_shape` below is height, width and channels of an image.
    """

    layers: tuple[ConvLayer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("A convolutional network needs at least one layer, got none.")
        for index, layer in enumerate(self.layers):
            if list(layer.inputs) != sorted(set(layer.inputs)) or not all(0 <= i < index for i in layer.inputs):
                raise ValueError(
                    f"Layer {index} reads the layers {layer.inputs}; inputs are indices of earlier layers "
                    "(from 0), ascending and each once."
                )

    @property
    def dangling(self) -> tuple[int, ...]:
        """Indices of the layers that no layer reads, ascending. The last layer is always one of them."""
        read = {source for layer in self.layers for source in layer.inputs}
        return tuple(index for index in range(len(self.layers)) if index not in read)

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions that make the network of this JSON value, as far as it is one."""
        values: dict[str, Any] = {"depth": len(spec["layers"])}
        for index, layer in enumerate(spec["layers"]):
            values |= {f"layer{index}/{name}": value for name, value in layer.items() if name != "pool"}
        return values

    def canonical(self) -> dict[str, Any]:
        """The same network with its layers in canonical order, as a JSON value: equal for equal networks only.

        Two networks are equal where one becomes the other by renumbering layers. The order in which a layer's inputs
        are concatenated is no difference: it permutes the input channels of weights that are drawn alike.
        """
        order = canonical_order([layer.label for layer in self.layers], [layer.inputs for layer in self.layers])
        position = {index: position for position, index in enumerate(order)}
        return {
            "layers": [
                dataclasses.asdict(self.layers[index])
                | {"inputs": sorted(position[source] for source in self.layers[index].inputs)}
                for index in order
            ]
        }

    def build(self, input_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
        """An untrained Keras model from a batch of images to logits; see `build.build`."""
        from search_spaces.convnet.build import build

        return build(self, input_shape, num_classes)

    def network(self, input_shape: tuple[int, int, int], num_classes: int, **options: Any) -> ConvNetwork:
        """The same, untrained, as plain TensorFlow operations for training; see `network.ConvNetwork`."""
        from search_spaces.convnet.network import ConvNetwork

        return ConvNetwork(self, input_shape, num_classes, **options)

    def count(self, input_shape: tuple[int, int, int], num_classes: int) -> Cost:
        """Parameters, and FLOPs per image; see `cost.count`."""
        from search_spaces.convnet.cost import count

        return count(self, input_shape, num_classes)

    def source(self, input_shape: tuple[int, int, int], num_classes: int, preprocessing: str = "") -> str:
        """The text of a Python file that builds the network and needs only Keras; see `source.source`."""
        from search_spaces.convnet.source import source

        return source(self, input_shape, num_classes, preprocessing)
