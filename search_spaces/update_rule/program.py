"""Update rules as data: one compiled function applies any of them, so that a new rule needs no new trace."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
from keras import ops

from search_spaces.update_rule.language import BINARY, DECAYS, OPERANDS, UNARY
from search_spaces.update_rule.meaning import BINARY as BINARY_MEANING
from search_spaces.update_rule.meaning import UNARY as UNARY_MEANING
from search_spaces.update_rule.meaning import Draw, Moment
from search_spaces.update_rule.spec import MAX_GROUPS, UpdateRule

WORDS = (*OPERANDS, *DECAYS)
EARLIER = tuple(f"r{index}" for index in range(MAX_GROUPS - 1))
LENGTH = 1 + 5 * MAX_GROUPS

Tensor = Any


def encode(rule: UpdateRule) -> np.ndarray:
    """A rule as numbers, int32 (LENGTH,): how many groups it has, then five words of each, zeros behind the last."""
    numbers = [len(rule.groups)]
    operands = (*WORDS, *EARLIER)
    for group in rule.groups:
        numbers += [operands.index(group.operand1), operands.index(group.operand2)]
        numbers += [UNARY.index(group.unary1), UNARY.index(group.unary2), BINARY.index(group.binary)]
    return np.array(numbers + [0] * (LENGTH - len(numbers)), np.int32)


def update_of(program: Tensor, moment: Moment) -> Tensor:
    """The update U of an encoded rule, a vector as long as the moment's weight.

    What a word does not need is not computed: every word is a branch.

    Args:
        program: int32 (LENGTH,), as `encode` gives it; may differ from call to call.
        moment: its weight is a vector, and it has every average.
    """
    size = moment.weight.shape[0]

    def operand(number: Tensor, results: Tensor) -> Tensor:
        branches = [functools.partial(moment.operand, word) for word in WORDS]
        branches += [functools.partial(operator.getitem, results, index) for index in range(len(EARLIER))]
        return ops.switch(number, branches)

    def unary(number: Tensor, x: Tensor) -> Tensor:
        branches = [(lambda x: x) if word == "x" else _with(UNARY_MEANING[word], moment.drawn) for word in UNARY]
        return ops.switch(number, branches, x)

    def binary(number: Tensor, x: Tensor, y: Tensor) -> Tensor:
        branches = [(lambda x, y: x) if word == "keep x" else BINARY_MEANING[word] for word in BINARY]
        return ops.switch(number, branches, x, y)

    def group(index: Tensor, results: Tensor) -> Tensor:
        words = ops.slice(program, (1 + 5 * index,), (5,))
        left = unary(words[2], operand(words[0], results))
        right = unary(words[3], operand(words[1], results))
        made = binary(words[4], left, right)
        return ops.slice_update(results, (index, 0), made[None])

    results = ops.fori_loop(0, program[0], group, ops.zeros((MAX_GROUPS, size)))
    return ops.take(results, program[0] - 1, axis=0)


def _with(function: Any, drawn: Draw) -> Any:
    return lambda x: function(x, drawn)
