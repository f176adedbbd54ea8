"""Update rules as data: one compiled function applies any rule, so a new rule needs no new trace."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from automl.search_spaces.update_rule.expression import drops_of, with_places
from automl.search_spaces.update_rule.language import BINARY, DECAYS, OPERANDS, UNARY
from automl.search_spaces.update_rule.semantics import BINARY as BINARY_MEANING
from automl.search_spaces.update_rule.semantics import UNARY as UNARY_MEANING
from automl.search_spaces.update_rule.semantics import StepContext
from automl.search_spaces.update_rule.spec import MAX_GROUPS, Group, UpdateRule

WORDS = (*OPERANDS, *DECAYS)
SLOTS = MAX_GROUPS  # for results of groups; `_Unfolding` never needs more
NUM_OPERANDS = len(WORDS) + SLOTS
MAX_LINES = 2**MAX_GROUPS - 1  # if each group reads the previous group twice, and all have drops
HEADER = 2  # the number of lines, and the slot of the update

Tensor = Any


class Line(NamedTuple):
    """A group as numbers: its five words, the positions of its drops, and the slot of its result."""

    operand1: int
    operand2: int
    unary1: int
    unary2: int
    binary: int
    place1: int
    place2: int
    slot: int


LINE = len(Line._fields)
LENGTH = HEADER + LINE * MAX_LINES


def encode(rule: UpdateRule) -> np.ndarray:
    """A rule as numbers, int32 (LENGTH,): the number of lines, the slot of the update, the lines, and zeros."""
    lines = _Unfolding(rule).lines if rule.has_own_masks else _lines_of_groups(rule)
    numbers = [len(lines), lines[-1].slot, *(number for line in lines for number in line)]
    return np.array(numbers + [0] * (LENGTH - len(numbers)), np.int32)


def _line(group: Group, operand1: int, operand2: int, places: tuple[int, int], slot: int) -> Line:
    words = UNARY.index(group.unary1), UNARY.index(group.unary2), BINARY.index(group.binary)
    return Line(operand1, operand2, *words, *places, slot)


def _lines_of_groups(rule: UpdateRule) -> list[Line]:
    """One line for each group; all drops have position 0."""
    operands = (*WORDS, *(f"r{index}" for index in range(SLOTS)))
    return [
        _line(group, operands.index(group.operand1), operands.index(group.operand2), (0, 0), slot)
        for slot, group in enumerate(rule.groups)
    ]


class _Unfolding:
    """The lines of a rule in which every drop has its own mask.

    A group with drops is computed again each time it is read, because each read has its own masks. A group without
    drops is computed once and keeps its slot. Results of groups with drops need at most one slot per group at a time.
    """

    def __init__(self, rule: UpdateRule) -> None:
        self._groups = rule.groups
        self._places: Iterator[int] = (word.place for word in drops_of(with_places(rule.expression())))
        self._free = list(range(SLOTS))
        self._kept: dict[int, int] = {}  # slots by group
        self.lines: list[Line] = []
        self._write(len(rule.groups) - 1)

    def _write(self, index: int) -> int:
        """Writes the lines that compute a group, in the order of its text; returns the slot of its result."""
        if index in self._kept:
            return self._kept[index]
        group = self._groups[index]
        place1 = self._place_of(group.unary1)
        operand1 = self._operand(group.operand1)
        if group.binary == "keep x":  # the second operand is not part of the rule
            group = Group(group.operand1, "1", group.unary1, "x", group.binary)
        place2 = self._place_of(group.unary2)
        operand2 = self._operand(group.operand2)
        for operand in {operand1, operand2}:
            if (slot := operand - len(WORDS)) >= 0 and slot not in self._kept.values():
                self._free.append(slot)
        slot = self._free.pop()
        self.lines.append(_line(group, operand1, operand2, (place1, place2), slot))
        if not self._has_drops(index):
            self._kept[index] = slot
        return slot

    def _operand(self, word: str) -> int:
        earlier = _earlier(word)
        return WORDS.index(word) if earlier is None else len(WORDS) + self._write(earlier)

    def _place_of(self, unary: str) -> int:
        return next(self._places) if unary.startswith("drop ") else 0

    def _has_drops(self, index: int) -> bool:
        group = self._groups[index]
        sides = [(group.operand1, group.unary1), (group.operand2, group.unary2)]
        return any(
            unary.startswith("drop ") or ((earlier := _earlier(operand)) is not None and self._has_drops(earlier))
            for operand, unary in sides[: 1 if group.binary == "keep x" else 2]
        )


def _earlier(operand: str) -> int | None:
    """The index of the group whose result an operand is; None for a word of the language."""
    return int(operand[1:]) if operand[0] == "r" and operand[1:].isdecimal() else None


def update_of(program: Tensor, context: StepContext) -> Tensor:
    """The update U of an encoded rule, a vector as long as the context's weight.

    Every word is a branch of a switch, so only the words of the rule are computed.

    Args:
        program: int32 (LENGTH,), as returned by `encode`; may differ from call to call.
        context: the step; its weight is a vector, and it has all averages.
    """
    size = context.weight.shape[0]

    def operand(number: Tensor, results: Tensor) -> Tensor:
        branches = [functools.partial(context.operand, word) for word in WORDS]
        branches += [functools.partial(operator.getitem, results, slot) for slot in range(SLOTS)]
        return ops.switch(number, branches)

    def unary(number: Tensor, place: Tensor, x: Tensor) -> Tensor:
        drawn = functools.partial(context.drawn, place)
        branches = [(lambda x: x) if word == "x" else _with(UNARY_MEANING[word], drawn) for word in UNARY]
        return ops.switch(number, branches, x)

    def binary(number: Tensor, x: Tensor, y: Tensor) -> Tensor:
        branches = [(lambda x, y: x) if word == "keep x" else BINARY_MEANING[word] for word in BINARY]
        return ops.switch(number, branches, x, y)

    def line(index: Tensor, results: Tensor) -> Tensor:
        numbers = ops.slice(program, (HEADER + LINE * index,), (LINE,))
        words = Line(*(numbers[place] for place in range(LINE)))
        left = unary(words.unary1, words.place1, operand(words.operand1, results))
        right = unary(words.unary2, words.place2, operand(words.operand2, results))
        result = binary(words.binary, left, right)
        return ops.slice_update(results, (words.slot, 0), result[None])

    results = ops.fori_loop(0, program[0], line, ops.zeros((SLOTS, size), dtype=context.weight.dtype))
    return ops.take(results, program[1], axis=0)


def updates_of(programs: Tensor, context: StepContext) -> Tensor:
    """The updates of several encoded rules at once, (members, size).

    Every word is computed for all members, and each member selects its own: on an accelerator this takes less time than
    one rule after the other.

    Args:
        programs: int32 (members, LENGTH), as returned by `encode`; may differ from call to call.
        context: the step of all members. Its weight has the shape (members, size), and it has all averages; numbers of
            a member, such as its step, have the shape (members, 1), and `drawn` receives places of this shape.
    """
    words = [context.operand(word) for word in WORDS]
    slots = ops.expand_dims(ops.arange(SLOTS, dtype="int32"), 1)  # (slots, 1)

    def operand(numbers: Tensor, results: Tensor) -> Tensor:
        return _selected(numbers, [*words, *(results[slot] for slot in range(SLOTS))])

    def unary(numbers: Tensor, places: Tensor, x: Tensor) -> Tensor:
        uniform = context.drawn(places)
        return _selected(numbers, [x if word == "x" else UNARY_MEANING[word](x, lambda: uniform) for word in UNARY])

    def binary(numbers: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return _selected(numbers, [x if word == "keep x" else BINARY_MEANING[word](x, y) for word in BINARY])

    def line(index: Tensor, results: Tensor) -> Tensor:
        shape = programs.shape[0], LINE
        numbers = ops.reshape(ops.slice(programs, (0, HEADER + LINE * index), shape), shape)  # a static shape
        of_line = Line(*(numbers[:, place : place + 1] for place in range(LINE)))
        left = unary(of_line.unary1, of_line.place1, operand(of_line.operand1, results))
        right = unary(of_line.unary2, of_line.place2, operand(of_line.operand2, results))
        result = binary(of_line.binary, left, right)
        # (slots, members): a rule with fewer lines keeps its results.
        written = (slots == ops.transpose(of_line.slot)) & (index < programs[:, 0])
        return ops.where(written[:, :, None], result[None], results)

    empty = ops.zeros((SLOTS, *context.weight.shape), dtype=context.weight.dtype)
    results = ops.fori_loop(0, ops.max(programs[:, 0]), line, empty)
    return _selected(programs[:, 1:2], [results[slot] for slot in range(SLOTS)])


def _selected(numbers: Tensor, values: Sequence[Tensor]) -> Tensor:
    """For each member the value of its number.

    Args:
        numbers: int32 (members, 1).
        values: (members, size) each.
    """
    selected = values[0]
    for number, value in enumerate(values[1:], 1):
        selected = ops.where(numbers == number, value, selected)
    return selected


def _with(function: Any, drawn: Any) -> Any:
    return lambda x: function(x, drawn)
