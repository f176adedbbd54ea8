"""The layers of a convolutional network as plain data, which building, counting, training and exports use."""

from __future__ import annotations

import dataclasses


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
        pool: whether a 2 x 2 max pooling of stride 2 with 'same' padding follows.
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

    def __str__(self) -> str:
        read = ",".join(str(index) for index in self.inputs) or "image"
        strides = (self.stride_height, self.stride_width)
        stride = "" if strides == (1, 1) else f"/{self.stride_height}x{self.stride_width}"
        pool = "p" if self.pool else ""
        return f"{self.filter_height}x{self.filter_width}x{self.num_filters}{stride}{pool}({read})"

    @property
    def label(self) -> tuple[int, ...]:
        """All attributes of the layer except its inputs."""
        return (
            self.filter_height,
            self.filter_width,
            self.num_filters,
            self.stride_height,
            self.stride_width,
            int(self.pool),
        )


@dataclasses.dataclass(frozen=True)
class ConvLayers:
    """Layers that read earlier layers or the image. The outputs that no layer reads go to the classifier."""

    layers: tuple[ConvLayer, ...]

    def __post_init__(self) -> None:
        layers = tuple(ConvLayer(**layer) if isinstance(layer, dict) else layer for layer in self.layers)
        object.__setattr__(self, "layers", layers)  # a spec read from JSON has dicts
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
