"""What the joint space decodes to: a network, and the rule and rate that it is trained with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from search_spaces.convnet.spec import ConvNet
from search_spaces.update_rule.spec import UpdateRule

if TYPE_CHECKING:
    import keras

    from search_spaces.convnet.cost import Cost
    from search_spaces.convnet.network import ConvNetwork

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class TrainedNet:
    """A convolutional network that says how it wants to be trained."""

    net: ConvNet
    rule: UpdateRule
    learning_rate: float

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions that make the child of this JSON value, as far as it is one."""
        values = ConvNet.decisions(spec["net"]) | UpdateRule.decisions(spec["rule"])
        return values | {"learning_rate": spec["learning_rate"]}

    def canonical(self) -> dict[str, Any]:
        """One value for all children that are trained alike."""
        return {"net": self.net.canonical(), "rule": self.rule.canonical(), "learning_rate": self.learning_rate}

    def build(self, input_shape: Shape, num_classes: int) -> keras.Model:
        """The network; see `ConvNet.build`."""
        return self.net.build(input_shape, num_classes)

    def network(self, input_shape: Shape, num_classes: int, **options: Any) -> ConvNetwork:
        """The network as training runs it; see `ConvNet.network`."""
        return self.net.network(input_shape, num_classes, **options)

    def optimizer(self, **options: Any) -> keras.optimizers.Optimizer:
        """The rule as a Keras optimizer at its rate; see `UpdateRule.optimizer`."""
        return self.rule.optimizer(**({"learning_rate": self.learning_rate} | options))

    def count(self, input_shape: Shape, num_classes: int) -> Cost:
        """Parameters and FLOPs of the network; see `ConvNet.count`."""
        return self.net.count(input_shape, num_classes)

    def source(self, input_shape: Shape, num_classes: int, preprocessing: str = "") -> str:
        """A Python file with a function `build()` for the network and the optimizer's class `FoundRule`."""
        from search_spaces.update_rule.source import definitions

        imports, definition = definitions(self.rule.expression(), learning_rate=self.learning_rate)
        network = self.net.source(input_shape, num_classes, preprocessing)
        head, lines, rest = network.partition("import keras\nfrom keras import layers\n")
        assert lines
        return f"{head}{imports}\nfrom keras import layers\n\n\n{definition.rstrip()}\n{rest}"
