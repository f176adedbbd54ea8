"""What the words of an update rule compute, in `keras.ops`."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from automl.search_spaces.update_rule.expression import Drop, Expression

Tensor = Any
DELTA = 1e-8  # added to denominators
EPSILON = 1e-7  # as in Keras's Adam and RMSprop
RHO = 0.9  # the decay of Keras's RMSprop
BETA_1, BETA_2 = 0.9, 0.999
STREAMS = 3  # streams of random numbers per weight variable: one for the drops of a step, two for its noise
PLACES_APART = 0x9E3779B9  # offset in steps between the masks of two drops; no training has so many steps

AVERAGES = {  # the words that read each running average
    "first": ("m", "momentum", "adam"),
    "second": ("v", "adam"),
    "third": ("y",),
    "mean_square": ("rmsprop",),
}

Draw = Callable[[], Tensor]  # returns random numbers of the step; every call returns the same numbers

UNARY: dict[str, Callable[[Tensor, Draw], Tensor]] = {  # functions of x and of uniform numbers for this step and place
    "-x": lambda x, drawn: -x,
    "exp(x)": lambda x, drawn: ops.exp(x),
    "log(abs(x))": lambda x, drawn: ops.log(ops.abs(x)),
    "sqrt(abs(x))": lambda x, drawn: ops.sqrt(ops.abs(x)),
    "clip 1e-5": lambda x, drawn: ops.clip(x, -1e-5, 1e-5),
    "clip 1e-4": lambda x, drawn: ops.clip(x, -1e-4, 1e-4),
    "clip 1e-3": lambda x, drawn: ops.clip(x, -1e-3, 1e-3),
    "drop 0.1": lambda x, drawn: ops.where(drawn() < 0.1, 0.0, x),
    "drop 0.3": lambda x, drawn: ops.where(drawn() < 0.3, 0.0, x),
    "drop 0.5": lambda x, drawn: ops.where(drawn() < 0.5, 0.0, x),
    "sign(x)": lambda x, drawn: ops.sign(x),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x + y": ops.add,
    "x - y": ops.subtract,
    "x * y": ops.multiply,
    "x / y": lambda x, y: x / (y + DELTA),
    "x ^ y": ops.power,
}


def averaged(name: str, before: Tensor, gradient: Tensor, beta_1: float = BETA_1, beta_2: float = BETA_2) -> Tensor:
    """A running average after one more gradient: decay * before + (1 - decay) * gradient^power.

    Args:
        name: a key of `AVERAGES`, which determines decay and power.
    """
    decay, power = {"first": (beta_1, 1), "second": (beta_2, 2), "third": (beta_2, 3), "mean_square": (RHO, 2)}[name]
    return decay * before + (1.0 - decay) * gradient**power


@dataclasses.dataclass(frozen=True)
class StepContext:
    """The values that a rule reads at one step.

    Attributes:
        gradient, weight: tensors of one shape.
        averages: the running averages that the rule reads, by name; they include this gradient.
        step: number of the step, from 0; a number or a scalar tensor.
        drawn: returns uniform numbers in [0, 1), of the weight's shape, for the mask of the `drop` at a place.
        noise: returns numbers from the standard normal distribution, of the weight's shape.
        decay_steps: number of steps of the whole training.
    """

    gradient: Tensor
    weight: Tensor
    averages: Mapping[str, Tensor]
    step: Tensor
    drawn: Callable[[Tensor], Tensor]
    noise: Draw
    decay_steps: Any = 1
    beta_1: float = BETA_1
    beta_2: float = BETA_2

    def operand(self, word: str) -> Tensor:
        """The value of an operand or a decay at this step, of the weight's shape."""
        g = self.gradient
        steps = ops.cast(self.step, g.dtype) + 1.0
        first, second = 1.0 - self.beta_1**steps, 1.0 - self.beta_2**steps
        match word:
            case "g":
                return g
            case "g^2" | "g^3":
                return g ** int(word[-1])
            case "1" | "2":
                return ops.full_like(g, float(word))
            case "m":
                return self.averages["first"] / first
            case "v":
                return self.averages["second"] / second
            case "y":
                return self.averages["third"] / second
            case "sign(g)":
                return ops.sign(g)
            case "sign(m)":
                return ops.sign(self.averages["first"])
            case "momentum":
                return self.averages["first"]
            case "adam":  # as in Keras, with epsilon outside the bias correction
                root = ops.sqrt(self.averages["second"]) + EPSILON
                return self.averages["first"] / first * ops.sqrt(second) / root
            case "rmsprop":
                return g / ops.sqrt(self.averages["mean_square"] + EPSILON)
            case "noise":
                return 0.01 * ops.cast(self.noise(), g.dtype)
            case "linear_decay" | "cosine_decay" | "restart_decay":
                return ops.full_like(g, 1.0) * decay_at(word, steps - 1.0, self.decay_steps)
        return float(word.removesuffix("w")) * self.weight


def decay_at(word: str, step: Any, decay_steps: Any) -> Any:
    """A factor in [0, 1] at a step from 0, with T = decay_steps (Bello et al. 2017, section 4.4):

    linear_decay    (T - t) / T, at least 0
    cosine_decay    (1 + cos(2 pi n t / T)) / 2 with n = 1/2 periods
    restart_decay   (1 + cos(pi ((n t) mod T) / T)) / 2 with n = 1
    """
    progress = step / decay_steps
    if word == "linear_decay":
        return ops.maximum(1.0 - progress, 0.0)
    if word == "cosine_decay":
        return 0.5 * (1.0 + ops.cos(math.pi * progress))
    return 0.5 * (1.0 + ops.cos(math.pi * ops.mod(progress, 1.0)))


def evaluate(expression: Expression, context: StepContext) -> Tensor:
    """The value of an expression, of the weight's shape. Drops without a place share the mask of the first."""
    word, *parts = expression
    if not parts:
        return context.operand(word)
    values = [evaluate(part, context) for part in parts]
    if len(values) == 2:
        return BINARY[word](*values)
    place = word.place if isinstance(word, Drop) else 0
    return UNARY[word](values[0], functools.partial(context.drawn, place))


def words_of(expression: Expression) -> set[str]:
    """All words of an expression."""
    word, *parts = expression
    return {word}.union(*(words_of(part) for part in parts))


def uniform(shape: Sequence[int], seed: int, step: Tensor, stream: int, place: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), float32 of this shape. They depend only on the arguments, not on process or order."""
    return ops.reshape(uniform_of(counters(math.prod(shape), stream), _constant(seed), step, place), shape)


def normal(shape: Sequence[int], seed: int, step: Tensor, stream: int) -> Tensor:
    """Numbers from the standard normal distribution, float32 of this shape, from this stream and the next. They depend
    only on the arguments."""
    count = math.prod(shape)
    pair = counters(count, stream), counters(count, stream + 1)
    return ops.reshape(normal_of(*pair, _constant(seed), step), shape)


def counters(count: int, stream: int) -> Tensor:
    """The counter of each element of a stream, uint32 (count,). An element's random numbers depend only on its counter,
    the seed, the step and the place."""
    return ops.cast(ops.arange(count), "uint32") + _constant(stream * 0x85EBCA6B)


def uniform_of(words: Tensor, seed: Tensor, step: Tensor, place: Tensor = 0) -> Tensor:
    """A number in [0, 1) for each counter: two rounds of the 32-bit finalizer of MurmurHash3 (Appleby).

    Args:
        words: counters, uint32.
        seed: uint32 scalar.
        step: number of the step, from 0; a number or a scalar tensor.
        place: position of a drop; a number or a scalar tensor.
    """
    number = ops.cast(step, "uint32") + ops.cast(place, "uint32") * _constant(PLACES_APART)
    mixed = _mix(words + seed * _constant(0x9E3779B9))
    mixed = _mix(mixed + number * _constant(0xC2B2AE35))
    return ops.cast(ops.right_shift(mixed, _constant(8)), "float32") * 2.0**-24


def normal_of(words: Tensor, other_words: Tensor, seed: Tensor, step: Tensor) -> Tensor:
    """A number from the standard normal distribution for each pair of counters (Box & Muller 1958)."""
    radius = ops.sqrt(-2.0 * ops.log(1.0 - uniform_of(words, seed, step)))
    return radius * ops.cos(2.0 * math.pi * uniform_of(other_words, seed, step))


def _mix(word: Tensor) -> Tensor:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = ops.bitwise_xor(word, ops.right_shift(word, _constant(shift))) * _constant(factor)
    return ops.bitwise_xor(word, ops.right_shift(word, _constant(16)))


def _constant(number: int) -> Tensor:
    return ops.cast(ops.convert_to_tensor(number % 2**32, "int64"), "uint32")
