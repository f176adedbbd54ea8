"""The contract of a spec, the decoded child: what every search needs of it, and optional capabilities.

A space may return a `Spec`, as the built-in spaces do; any JSON value; or a frozen dataclass of plain values with some
of the methods below. `as_spec` completes a value that is not a whole `Spec`. Code tests for a capability with
`isinstance`, for example `isinstance(spec, Buildable)`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

from automl.search_spaces.plain import plain

if TYPE_CHECKING:
    import keras

Json: TypeAlias = Any  # a JSON value: a number, a string, True, False, None, a list or a dict of these
ImageShape = tuple[int, ...]  # height, width, channels


@runtime_checkable
class HasIdentity(Protocol):
    """A spec that defines which children are equal."""

    def canonical(self) -> Json:
        """A JSON value. Two children are equal if and only if their values are equal."""


@runtime_checkable
class HasLine(Protocol):
    """A spec that can be written in one line, for tables."""

    def line(self) -> str:
        """The child in its own notation, without line breaks."""


@runtime_checkable
class HasDrawing(Protocol):
    """A spec that can be drawn as text."""

    def drawing(self) -> str:
        """The lines of a drawing; "" if there is none."""


@runtime_checkable
class Spec(HasIdentity, HasLine, HasDrawing, Protocol):
    """A decoded child: an immutable record of plain values."""

    def to_json(self) -> Json:
        """The JSON value in the store; the space's reader in `search_spaces.READERS` makes the spec from it."""


# Capabilities: optional methods that tasks, exports and requests use if a spec has them.


class CountResult(Protocol):
    """The cost of a network: its number of parameters, and the FLOPs of the forward pass for one input."""

    @property
    def params(self) -> int: ...

    @property
    def flops(self) -> int: ...


@runtime_checkable
class Buildable(Protocol):
    """An image classifier. A task on images requires it."""

    def build(self, input_shape: ImageShape, num_classes: int) -> keras.Model:
        """An untrained Keras model from images, (batch, *input_shape), to logits, (batch, num_classes). It does not end
        in a softmax."""


@runtime_checkable
class Countable(Protocol):
    """An image classifier whose size is known without building it, for --max-params and --max-flops."""

    def count(self, input_shape: ImageShape, num_classes: int) -> CountResult: ...


@runtime_checkable
class Trainable(Protocol):
    """An image classifier that training runs as plain TensorFlow operations, in the precision of the search."""

    def network(self, input_shape: ImageShape, num_classes: int, *, seed: int, precision: str, xla: bool) -> Any:
        """An untrained `child_trainers.images.networks.Network`, the same function as the model that `build` makes."""


@runtime_checkable
class Cell(Protocol):
    """A recurrent cell whose step is a function of matrix products with x and with h, which training can thus batch. A
    task on text requires it.

    Attributes:
        num_products: number of products with x, and of products with h, in one step.
        biased: whether a bias is added to the products.
    """

    @property
    def num_products(self) -> int: ...

    @property
    def biased(self) -> bool: ...

    def step(self, x_products: Any, h_products: Any, memory: Any) -> tuple[Any, Any]:
        """The next h and c, (batch, units) each, from products of shape (batch, num_products * units)."""


@runtime_checkable
class KerasCell(Cell, Protocol):
    """A cell that Keras can run, so that its language model can be exported."""

    def cell(self, units: int) -> keras.layers.Layer:
        """A cell for `keras.layers.RNN` with the weights `kernel`, `recurrent_kernel` and, if biased, `bias`."""


@runtime_checkable
class BringsOptimizer(Protocol):
    """A spec that brings its own optimizer, which replaces the recipe's."""

    def optimizer(self, *, decay_steps: int, seed: int) -> keras.optimizers.Optimizer: ...


@runtime_checkable
class BringsRate(BringsOptimizer, Protocol):
    """A spec that brings its own optimizer and its learning rate."""

    @property
    def learning_rate(self) -> float: ...


@runtime_checkable
class HasSource(Protocol):
    """A spec that can be written as Python source, for `export --format python`.

    A task on images calls `source(input_shape, num_classes, preprocessing=…)`, where `preprocessing` are lines that
    define the layer before the network. A task on text calls `source()` and expects the class `TreeCell`.
    """

    def source(self, *arguments: Any, **options: Any) -> str: ...


@runtime_checkable
class HasOptimizerSource(Protocol):
    """A spec that is an optimizer and can be written as Python source, whatever the task."""

    def optimizer_source(self, learning_rate: float | None) -> str:
        """A Python file with a Keras optimizer class; `learning_rate` is its default, None if unknown."""


@runtime_checkable
class HasGraph(Protocol):
    """A spec that Graphviz can draw. Other specs are drawn if their JSON has layers with `inputs`."""

    def dot(self) -> str: ...


@runtime_checkable
class Versioned(Protocol):
    """A spec of a built-in space that can compute as an earlier release did, for searches that began with it."""

    def with_behaviour(self, versions: Mapping[str, int]) -> object:
        """The same child with these versions, by the names of `child_trainers.behaviour.Behaviour`."""


@runtime_checkable
class Encodable(Protocol):
    """A spec whose JSON determines its decisions, so that `automl propose` accepts what `export` wrote."""

    @staticmethod
    def decisions(spec: dict[str, Any]) -> dict[str, Any]:
        """The values of the space's decisions by name, as far as the JSON value is such a spec."""


@runtime_checkable
class Parsable(Encodable, Protocol):
    """A spec that can be written as text, which `automl propose` accepts too."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The spec of a text. Raises ValueError if the text is not such a spec."""

    def longer(self) -> Sequence[Self]:
        """This spec, and equal ones with more decisions, shortest first."""

    def to_json(self) -> Json: ...


@dataclasses.dataclass(frozen=True)
class AnySpec:
    """Makes a `Spec` of what a user's space returned.

    Args:
        value: a JSON value, or a dataclass of plain values that may have some of the methods of a `Spec`.
        tokens: the child's tokens; they identify the child if the value has no `canonical`.
    """

    value: object
    tokens: tuple[int, ...] = ()

    def canonical(self) -> Json:
        return self.value.canonical() if isinstance(self.value, HasIdentity) else list(self.tokens)

    def to_json(self) -> Json:
        return spec_to_json(self.value)

    def line(self) -> str:
        if isinstance(self.value, HasLine):
            return printable(" ".join(str(self.value.line()).split()))
        return json_line(self.to_json())

    def drawing(self) -> str:
        if not isinstance(self.value, HasDrawing):
            return ""
        return "\n".join(printable(line) for line in str(self.value.drawing()).splitlines())


def as_spec(value: object, tokens: tuple[int, ...] = ()) -> Spec:
    """Makes a whole `Spec` of what a space returned; see `AnySpec`."""
    return value if isinstance(value, Spec) else AnySpec(value, tokens)


def spec_to_json(spec: object) -> Json:
    """A spec as plain JSON: `to_json()` of a `Spec`, a dict of the fields of another dataclass, or the JSON value
    itself. NumPy numbers become Python numbers.

    Raises:
        ValueError: the spec contains something that JSON cannot represent.
    """
    value = spec
    if isinstance(spec, Spec):
        value = spec.to_json()
    elif dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        value = dataclasses.asdict(spec)
    try:
        return json.loads(json.dumps(plain(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The space returned a {type(spec).__name__} that is neither a frozen dataclass of plain values nor a "
            f"JSON value: {error}."
        ) from error


def canonical_hash(spec: object, tokens: tuple[int, ...]) -> str:
    """SHA-256 of `spec.canonical()`, or of the tokens if it has no `canonical`. Equal children have equal hashes."""
    canonical = spec.canonical() if isinstance(spec, HasIdentity) else list(tokens)
    return hashlib.sha256(canonical_json(canonical).encode()).hexdigest()


def canonical_json(value: Json) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_line(value: Json) -> str:
    """JSON in one line, with unprintable characters escaped."""
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def printable(text: str) -> str:
    """The text with unprintable characters as JSON escapes."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
