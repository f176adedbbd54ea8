"""Decisions and answers as the arrays that a step of the policy takes; drawing and learning both write them here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from controllers.reinforce.heads import Heads
from controllers.reinforce.policy import ANCHORS, EMBEDDING, START, Current, Previous
from search_spaces.decisions import Choice, Decision


class NewKindError(Exception):
    """A decision turned up for which the tables have no room yet; `decisions` are the child's so far, with that one."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        super().__init__(f"The tables have no room for {decisions[-1].name!r}.")
        self.decisions = list(decisions)


def first_inputs(shape: tuple[int, ...], heads: Heads) -> Previous:
    """Nothing answered yet, everywhere."""
    return Previous(
        np.full(shape, START, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros((*shape, heads.slots), np.float32),
    )


def padding(shape: tuple[int, ...], heads: Heads) -> Current:
    """Nothing to decide, everywhere."""
    return Current(
        np.zeros(shape, np.int32), np.ones((*shape, heads.width), bool), np.zeros((*shape, heads.slots), np.float32)
    )


def pack(previous: Previous, current: Current) -> np.ndarray:
    """Both records of one step as one float32 array (batch, 4 + width + 2 slots); small integers are exact in it."""
    numbers = np.stack([previous.mode, previous.kind, previous.token, current.kind], axis=1)
    return np.concatenate([numbers, previous.chosen, current.slot, current.allowed], axis=1, dtype=np.float32)


def unpack(packed: tf.Tensor, heads: Heads) -> tuple[Previous, Current]:
    """The records of `pack`, as tensors."""
    numbers, chosen, slot, allowed = tf.split(packed, [4, heads.slots, heads.slots, heads.width], axis=1)
    mode, kind, token, current_kind = tf.unstack(tf.cast(numbers, tf.int32), axis=1)
    return Previous(mode, kind, token, chosen), Current(current_kind, allowed > 0.5, slot)


class ChildEncoder:
    """Writes one child, decision by decision. Each `Links` fills the next anchor slot and links to those of its kind.

    Attributes:
        earlier: the slots that the latest `Links` can link to, oldest first.
    """

    def __init__(self, heads: Heads) -> None:
        self.earlier: list[int] = []
        self._heads = heads
        self._decisions: list[Decision] = []
        self._slots: dict[str, list[int]] = {}

    def write_decision(self, current: Current, at: int | tuple[int, int], decision: Decision) -> None:
        """Raises NewKindError."""
        self._decisions.append(decision)
        if isinstance(decision, Choice):
            if self._heads.widths.get(decision.kind) != len(decision.options):
                raise NewKindError(self._decisions)
            current.kind[at] = self._heads.rows[decision.kind]
            current.allowed[at] = False
            current.allowed[at][: len(decision.options)] = decision.allowed or True
            return
        slot = sum(map(len, self._slots.values()))
        if slot >= self._heads.slots:
            raise NewKindError(self._decisions)
        slots = self._slots.setdefault(decision.kind, [])
        self.earlier = list(slots)
        slots.append(slot)
        current.slot[at][slot] = 1.0

    def write_answer(
        self, previous: Previous, at: int | tuple[int, int], decision: Decision, answer: tuple[int, ...]
    ) -> None:
        if isinstance(decision, Choice):
            previous.mode[at] = EMBEDDING
            previous.kind[at] = self._heads.rows[decision.kind]
            previous.token[at] = answer[0]
        else:
            previous.mode[at] = ANCHORS
            previous.chosen[at][self.earlier] = answer
