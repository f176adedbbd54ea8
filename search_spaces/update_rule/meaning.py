"""What the words of an update rule compute, in `keras.ops`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from search_spaces.update_rule.expression import Expression

Tensor = Any
DELTA = 1e-8  # added to what is divided by

UNARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of x, and of numbers in [0, 1) drawn for the step
    "-x": lambda x, drawn: -x,
    "exp(x)": lambda x, drawn: ops.exp(x),
    "log(abs(x))": lambda x, drawn: ops.log(ops.abs(x)),
    "sqrt(abs(x))": lambda x, drawn: ops.sqrt(ops.abs(x)),
    "clip 1e-5": lambda x, drawn: ops.clip(x, -1e-5, 1e-5),
    "clip 1e-4": lambda x, drawn: ops.clip(x, -1e-4, 1e-4),
    "clip 1e-3": lambda x, drawn: ops.clip(x, -1e-3, 1e-3),
    "drop 0.1": lambda x, drawn: ops.where(drawn < 0.1, 0.0, x),
    "drop 0.3": lambda x, drawn: ops.where(drawn < 0.3, 0.0, x),
    "drop 0.5": lambda x, drawn: ops.where(drawn < 0.5, 0.0, x),
    "sign(x)": lambda x, drawn: ops.sign(x),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x + y": ops.add,
    "x - y": ops.subtract,
    "x * y": ops.multiply,
    "x / y": lambda x, y: x / (y + DELTA),
    "x ^ y": ops.power,
}


def evaluate(expression: Expression, operands: Mapping[str, Tensor], drawn: Tensor) -> Tensor:
    """The value of an expression.

    Args:
        operands: the value of each word that it reads.
        drawn: numbers in [0, 1), of the weight's shape, that every `drop` of the step goes by.
    """
    word, *parts = expression
    if not parts:
        return operands[word]
    values = [evaluate(part, operands, drawn) for part in parts]
    return UNARY[word](values[0], drawn) if len(values) == 1 else BINARY[word](*values)


def words_of(expression: Expression) -> set[str]:
    """Every word of an expression."""
    word, *parts = expression
    return {word}.union(*(words_of(part) for part in parts))


def uniform(shape: tuple[int, ...], seed: int, step: Tensor, stream: int) -> Tensor:
    """Numbers in [0, 1) that depend on nothing but the arguments: the same in every process and in any order.

    The words of two rounds of the 32-bit finalizer of MurmurHash3 (Appleby), over (element, step, stream, seed).
    """
    count = math.prod(shape)
    word = _mix(ops.cast(ops.arange(count), "uint32") + _constant((seed * 0x9E3779B9 + stream * 0x85EBCA6B) % 2**32))
    word = _mix(word + ops.cast(step, "uint32") * _constant(0xC2B2AE35))
    return ops.reshape(ops.cast(ops.right_shift(word, _constant(8)), "float32") * 2.0**-24, shape)


def normal(shape: tuple[int, ...], seed: int, step: Tensor, stream: int) -> Tensor:
    """Numbers from the standard normal distribution, likewise (Box & Muller 1958)."""
    radius = ops.sqrt(-2.0 * ops.log(1.0 - uniform(shape, seed, step, 2 * stream)))
    return radius * ops.cos(2.0 * math.pi * uniform(shape, seed, step, 2 * stream + 1))


def _mix(word: Tensor) -> Tensor:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = ops.bitwise_xor(word, ops.right_shift(word, _constant(shift))) * _constant(factor)
    return ops.bitwise_xor(word, ops.right_shift(word, _constant(16)))


def _constant(number: int) -> Tensor:
    return ops.cast(ops.convert_to_tensor(number, "int64"), "uint32")
