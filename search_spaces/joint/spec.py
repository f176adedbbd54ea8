"""The spec of the joint space: a network or a recurrent cell, with the update rule and learning rate that train it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.recurrent_cell.spec import RecurrentCell
from automl.search_spaces.update_rule.spec import UpdateRule

if TYPE_CHECKING:
    import keras

    from automl.search_spaces.convnet.cost import Cost
    from automl.search_spaces.convnet.network import ConvNetwork
    from automl.search_spaces.recurrent_cell.layer import TreeCell

Shape = tuple[int, int, int]


class WithRule:
    """The base of both specs: the update rule and the learning rate."""

    rule: UpdateRule
    learning_rate: float

    def optimizer(self, **options: Any) -> keras.optimizers.Optimizer:
        """The rule as a Keras optimizer at its rate; see `UpdateRule.optimizer`."""
        return self.rule.optimizer(**({"learning_rate": self.learning_rate} | options))

    def with_behaviour(self, versions: Mapping[str, int]) -> Self:
        """The same child with these versions of behaviours (`child_trainers.behaviour`)."""
        return dataclasses.replace(self, rule=self.rule.with_behaviour(versions))  # type: ignore[type-var]

    def to_json(self) -> dict[str, Any]:
        """The child as a JSON value."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def _line(self, network: str) -> str:
        return f"{network} by {self.rule.line()} at {self.learning_rate:g}"

    def _with_values(self, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"rule": self.rule.canonical(), "learning_rate": self.learning_rate}

    def _drawing(self, *, upwards: bool = False) -> str:
        """The rule as a part of a graph for Graphviz."""
        from automl.search_spaces.drawing import cluster
        from automl.search_spaces.update_rule.drawing import statements

        title = f"trained with, at the rate {self.learning_rate:g}"
        return cluster("rule", title, statements(self.rule.expression()), upwards=upwards)

    def _definitions(self) -> tuple[str, str]:
        """The imports that the rule's class `FoundRule` needs, and its text."""
        from automl.search_spaces.update_rule.source import definitions

        own_masks = self.rule.has_own_masks
        return definitions(self.rule.expression(), learning_rate=self.learning_rate, own_masks=own_masks)


@dataclasses.dataclass(frozen=True)
class TrainedNet(WithRule):
    """A convolutional network with the update rule and the learning rate that train it."""

    net: ConvNet
    rule: UpdateRule
    learning_rate: float

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The child from its JSON value."""
        parts = {"net": ConvNet.from_json(stored["net"]), "rule": UpdateRule.from_json(stored["rule"])}
        return cls(**stored | parts)

    def line(self) -> str:
        """The network, the rule and its rate; see `ConvNet.line` and `UpdateRule.line`."""
        return self._line(self.net.line())

    def drawing(self) -> str:
        """Empty, because there is no drawing as text; see `dot`."""
        return self.net.drawing()

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions for the child of this JSON value, which is not validated."""
        values = ConvNet.decisions(spec["net"]) | UpdateRule.decisions(spec["rule"])
        return values | {"learning_rate": spec["learning_rate"]}

    def canonical(self) -> dict[str, Any]:
        """A JSON value that is the same for all children with equal networks, rules and learning rates."""
        return self._with_values({"net": self.net.canonical()})

    def build(self, input_shape: Shape, num_classes: int) -> keras.Model:
        """The network; see `ConvNet.build`."""
        return self.net.build(input_shape, num_classes)

    def network(self, input_shape: Shape, num_classes: int, **options: Any) -> ConvNetwork:
        """The network as training runs it; see `ConvNet.network`."""
        return self.net.network(input_shape, num_classes, **options)

    def count(self, input_shape: Shape, num_classes: int) -> Cost:
        """Parameters and FLOPs of the network; see `ConvNet.count`."""
        return self.net.count(input_shape, num_classes)

    def dot(self) -> str:
        """The network and the rule as a graph for Graphviz."""
        from automl.search_spaces.convnet.drawing import statements
        from automl.search_spaces.drawing import cluster, graph

        return graph([cluster("network", "network", statements(self.net)), self._drawing()])

    def source(self, input_shape: Shape, num_classes: int, preprocessing: str = "") -> str:
        """A Python file with a function `build()` for the network and the optimizer's class `FoundRule`."""
        imports, definition = self._definitions()
        network = self.net.source(input_shape, num_classes, preprocessing)
        head, lines, rest = network.partition("import keras\nfrom keras import layers\n")
        assert lines
        return f"{head}{imports}\nfrom keras import layers\n\n\n{definition.rstrip()}\n{rest}"


@dataclasses.dataclass(frozen=True)
class TrainedCell(WithRule):
    """A recurrent cell with the update rule and the learning rate that train its language model."""

    tree: RecurrentCell
    rule: UpdateRule
    learning_rate: float

    biased = RecurrentCell.biased

    def with_behaviour(self, versions: Mapping[str, int]) -> TrainedCell:
        return dataclasses.replace(
            self, tree=self.tree.with_behaviour(versions), rule=self.rule.with_behaviour(versions)
        )

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The child from its JSON value."""
        parts = {"tree": RecurrentCell.from_json(stored["tree"]), "rule": UpdateRule.from_json(stored["rule"])}
        return cls(**stored | parts)

    def line(self) -> str:
        """The cell, the rule and its rate; see `RecurrentCell.line` and `UpdateRule.line`."""
        return self._line(self.tree.line())

    def drawing(self) -> str:
        """The cell's tree as text; see `RecurrentCell.drawing`."""
        return self.tree.drawing()

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions for the child of this JSON value, which is not validated."""
        values = RecurrentCell.decisions(spec["tree"]) | UpdateRule.decisions(spec["rule"])
        return values | {"learning_rate": spec["learning_rate"]}

    @property
    def num_products(self) -> int:
        """Number of products with x, and of products with h, in one step."""
        return self.tree.num_products

    def canonical(self) -> dict[str, Any]:
        """A JSON value that is the same for all children with equal networks, rules and learning rates."""
        return self._with_values({"tree": self.tree.canonical()})

    def dot(self) -> str:
        """The cell and the rule as a graph for Graphviz."""
        from automl.search_spaces.drawing import cluster, graph
        from automl.search_spaces.recurrent_cell.drawing import statements

        cell = cluster("cell", "cell", statements(self.tree), upwards=True)
        return graph([cell, self._drawing(upwards=True)], upwards=True)

    def cell(self, units: int, **options: Any) -> TreeCell:
        """The cell as a Keras layer; see `RecurrentCell.cell`."""
        return self.tree.cell(units, **options)

    def step(self, x_products: Any, h_products: Any, memory: Any) -> tuple[Any, Any]:
        """The next h and c; see `RecurrentCell.step`."""
        return self.tree.step(x_products, h_products, memory)

    def source(self) -> str:
        """The classes `FoundRule` and `TreeCell` as text, which use the names `math`, `keras` and `ops`."""
        _, definition = self._definitions()
        return f"{definition.rstrip()}\n\n\n{self.tree.source()}"


def from_json(stored: dict[str, Any]) -> TrainedNet | TrainedCell:
    """The child, with a network or a cell, from its JSON value."""
    return TrainedNet.from_json(stored) if "net" in stored else TrainedCell.from_json(stored)
