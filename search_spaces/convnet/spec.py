"""The spec of the convolutional space: a network as plain data, which imports Keras only when it is built."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

from automl.search_spaces.convnet.canonical import canonical_order
from automl.search_spaces.convnet.layers import ConvLayers

if TYPE_CHECKING:
    import keras

    from automl.search_spaces.convnet.cost import Cost
    from automl.search_spaces.convnet.network import ConvNetwork


@dataclasses.dataclass(frozen=True)
class ConvNet(ConvLayers):
    """A convolutional network, and all that can be made from it.

    In all methods `input_shape` is (height, width, channels) of an image.
    """

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The network from its JSON value."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """The network as a JSON value."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """The layers in order, for example `3x5x24/2x1p(0)`: height x width x filters, the strides if one is not 1, a
        `p` if pooling follows, and the inputs."""
        return " ".join(map(str, self.layers))

    def drawing(self) -> str:
        """Empty, because there is no drawing as text; see `dot`."""
        return ""

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions for the network of this JSON value, which is not validated."""
        values: dict[str, Any] = {"depth": len(spec["layers"])}
        for index, layer in enumerate(spec["layers"]):
            values |= {f"layer{index}/{name}": value for name, value in layer.items() if name != "pool"}
        return values

    def canonical(self) -> dict[str, Any]:
        """The network with its layers in canonical order, as a JSON value: the same for two networks if and only if
        they are equal.

        Networks are equal if they differ only in the numbering of layers. The order in which a layer's inputs are
        concatenated makes no difference: it permutes input channels of weights that have one initial distribution.
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
        from automl.search_spaces.convnet.build import build

        return build(self, input_shape, num_classes)

    def network(self, input_shape: tuple[int, int, int], num_classes: int, **options: Any) -> ConvNetwork:
        """The untrained network as plain TensorFlow operations, for training; see `network.ConvNetwork`."""
        from automl.search_spaces.convnet.network import ConvNetwork

        return ConvNetwork(self, input_shape, num_classes, **options)

    def count(self, input_shape: tuple[int, int, int], num_classes: int) -> Cost:
        """The number of parameters, and the FLOPs per image; see `cost.count`."""
        from automl.search_spaces.convnet.cost import count

        return count(self, input_shape, num_classes)

    def dot(self) -> str:
        """The network as a graph for Graphviz, the image at the top."""
        from automl.search_spaces.convnet.drawing import statements
        from automl.search_spaces.drawing import graph

        return graph(statements(self))

    def source(self, input_shape: tuple[int, int, int], num_classes: int, preprocessing: str = "") -> str:
        """The text of a Python file that builds the network and needs only Keras; see `source.source`."""
        from automl.search_spaces.convnet.source import source

        return source(self, input_shape, num_classes, preprocessing)
