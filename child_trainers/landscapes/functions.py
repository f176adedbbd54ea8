"""The functions of synthetic landscapes: the value of a child, and the highest value of all children.

Each instance has other random effects. Values have no unit; over random children their standard deviation is about 0.1
for `numbers` and between 0.7 and 2 for the others.
"""

from __future__ import annotations

import abc
import functools
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from automl.child_trainers.landscapes.pairwise import PairwiseSum, random_pairwise
from automl.child_trainers.landscapes.streams import Stream
from automl.search_spaces.landscape.space import FAMILIES, FEW, LAYERS, LETTERS, MANY, NUMBERS, OPERATIONS, SHARED

Child = Mapping[str, Any]  # values by the name of the decision


class Landscape(abc.ABC):
    """One instance of a landscape.

    Args:
        instance: chooses the random effects, 0 or more.

    Attributes:
        noise: standard deviation of the noise on the reward.
    """

    noise: ClassVar[float] = 0.0

    @abc.abstractmethod
    def value(self, child: Child) -> float:
        """The value of a child, without noise."""

    @functools.cached_property
    @abc.abstractmethod
    def optimum(self) -> tuple[float, bool]:
        """The highest value of all children, and True; or the best value of a local search, and False."""


class LinksLandscape(Landscape):
    """Effects of operations, of links, and of a link together with the operations at its ends. A layer with more than
    two links costs the square of their excess, times `CROWDED`. A layer without links costs `UNLINKED`, except the
    first. The total is multiplied by `SCALE`."""

    STRENGTH, CROWDED, UNLINKED, SCALE = 0.6, 0.25, 1.0, 0.25

    def __init__(self, instance: int) -> None:
        stream, options = Stream(1, instance), len(OPERATIONS)
        self._main = stream.normal(LAYERS, options)
        self._link = self.STRENGTH * stream.normal(LAYERS, LAYERS)
        self._joined = self.STRENGTH * stream.normal(LAYERS, LAYERS, options, options)

    def value(self, child: Child) -> float:
        operations = [OPERATIONS.index(child[f"layer{index}/operation"]) for index in range(LAYERS)]
        total = 0.0
        for layer, operation in enumerate(operations):
            inputs = child[f"layer{layer}/inputs"]
            total += self._main[layer, operation] + self._cost(layer, len(inputs))
            total += sum(self._gain(layer, earlier, operations) for earlier in inputs)
        return float(total * self.SCALE)

    @functools.cached_property
    def optimum(self) -> tuple[float, bool]:
        """Exact, by enumeration of all operations: given these, the links of each layer can be chosen separately."""
        best = -np.inf
        for operations in itertools.product(range(len(OPERATIONS)), repeat=LAYERS):
            total = 0.0
            for layer, operation in enumerate(operations):
                gains = sorted((self._gain(layer, earlier, operations) for earlier in range(layer)), reverse=True)
                sums = itertools.accumulate(gains, initial=0.0)
                total += self._main[layer, operation] + max(
                    gain + self._cost(layer, count) for count, gain in enumerate(sums)
                )
            best = max(best, total)
        return float(best * self.SCALE), True

    def _gain(self, layer: int, earlier: int, operations: Any) -> float:
        return float(self._link[layer, earlier] + self._joined[layer, earlier, operations[layer], operations[earlier]])

    def _cost(self, layer: int, count: int) -> float:
        return -self.CROWDED * max(0, count - 2) ** 2 - (self.UNLINKED if layer and not count else 0.0)


class ConditionalLandscape(Landscape):
    """Each family has an offset. Its own decisions have main effects, and effects of pairs of neighbours on a ring. The
    effects of the shared decisions differ from family to family."""

    OFFSETS: ClassVar[Mapping[str, float]] = {"a": 0.6, "b": 0.2, "c": 0.0, "d": -0.2}
    STRENGTH, SHARE = 0.7, 0.5

    def __init__(self, instance: int) -> None:
        stream, options = Stream(2, instance), len(LETTERS)
        self._own: dict[str, PairwiseSum] = {}
        for family, count in FAMILIES.items():
            scale = 1.0 / np.sqrt(count)
            main = stream.normal(count, options) * scale
            ring = {(i, (i + 1) % count): self.STRENGTH * scale * stream.normal(options, options) for i in range(count)}
            self._own[family] = PairwiseSum(main, ring)
        common = stream.normal(SHARED, len(OPERATIONS))
        self._shared = {family: self.SHARE * (common + stream.normal(SHARED, len(OPERATIONS))) for family in FAMILIES}

    def value(self, child: Child) -> float:
        family = child["family"]
        own = [LETTERS.index(child[f"{family}{index}"]) for index in range(FAMILIES[family])]
        shared = [OPERATIONS.index(child[f"shared{index}"]) for index in range(SHARED)]
        of_shared = sum(self._shared[family][index, option] for index, option in enumerate(shared))
        return float(self.OFFSETS[family] + self._own[family].value(own) + of_shared)

    @functools.cached_property
    def optimum(self) -> tuple[float, bool]:
        best = {family: self._own[family].maximum() for family in FAMILIES}
        value = max(
            self.OFFSETS[family] + highest + self._shared[family].max(axis=1).sum()
            for family, (highest, _) in best.items()
        )
        return float(value), all(exact for _, exact in best.values())


class ChoicesLandscape(Landscape):
    """Main effects, and the effects of random pairs of choices."""

    count: ClassVar[int]
    per_choice: ClassVar[int] = 2
    strength: ClassVar[float] = 1.0
    key: ClassVar[int]

    def __init__(self, instance: int) -> None:
        self._sum = random_pairwise(
            Stream(self.key, instance), self.count, len(LETTERS), per_choice=self.per_choice, strength=self.strength
        )

    def value(self, child: Child) -> float:
        return self._sum.value([LETTERS.index(child[f"choice{index}"]) for index in range(self.count)])

    @functools.cached_property
    def optimum(self) -> tuple[float, bool]:
        return self._sum.maximum()


class FortyLandscape(ChoicesLandscape):
    count, key = MANY, 3


class NoisyLandscape(ChoicesLandscape):
    count, key, strength, noise = FEW, 4, 0.8, 0.5


class NumbersLandscape(Landscape):
    """A mixture of four Gaussians over the unit cube: each decision is scaled to [0, 1] by its `unit_value`."""

    HEIGHTS = (1.0, 0.8, 0.7, 0.6)

    def __init__(self, instance: int) -> None:
        stream, shape = Stream(5, instance), (len(self.HEIGHTS), len(NUMBERS))
        self._centres = 0.15 + 0.7 * stream.uniform(*shape)
        self._sharpness = 3.0 + 9.0 * stream.uniform(*shape)

    def value(self, child: Child) -> float:
        units = [decision.unit_value(decision.token_of(child[decision.name])) for decision in NUMBERS]
        exponents = (self._sharpness * (np.array(units) - self._centres) ** 2).sum(axis=1)
        return float(np.array(self.HEIGHTS) @ np.exp(-exponents))

    @functools.cached_property
    def optimum(self) -> tuple[float, bool]:
        """Exact, by evaluation of all children: each Gaussian is an outer product over the decisions."""
        total: np.ndarray | float = 0.0
        for height, centre, sharpness in zip(self.HEIGHTS, self._centres, self._sharpness, strict=True):
            product = np.array(height)
            for index, decision in enumerate(NUMBERS):
                units = np.array([decision.unit_value(token) for token in range(len(decision.options))])
                product = np.multiply.outer(product, np.exp(-sharpness[index] * (units - centre[index]) ** 2))
            total = total + product
        return float(np.max(total)), True


LANDSCAPES: Mapping[str, type[Landscape]] = {
    "links": LinksLandscape,
    "conditional": ConditionalLandscape,
    "forty": FortyLandscape,
    "noisy": NoisyLandscape,
    "numbers": NumbersLandscape,
}


@functools.cache
def make_landscape(kind: str, instance: int) -> Landscape:
    """The landscape of a kind, one of `search_spaces.landscape.space.KINDS`, and an instance."""
    made: Landscape = LANDSCAPES[kind](instance)  # type: ignore[call-arg]
    return made
