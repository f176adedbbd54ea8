"""Draws many children in lockstep: one compiled step of the policy per decision, the generators in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from controllers.base import Draw, Proposal
from controllers.keyed import stream
from controllers.reinforce.heads import AnchorSlots, Heads
from controllers.reinforce.policy import (
    ANCHORS,
    EMBEDDING,
    START,
    Current,
    Previous,
    Variables,
    policy_step,
    zero_carry,
)
from search_spaces.decisions import Choice, Links
from search_spaces.space import Space
from search_spaces.walk import Walk


class NewKindError(Exception):
    """A decision turned up for which the tables have no room yet; `decisions` are the child's so far, with that one."""

    def __init__(self, walk: Walk) -> None:
        super().__init__("new kind of decision")
        self.decisions = [*walk.decisions, *([walk.decision] if walk.decision is not None else [])]


class Sampler:
    """Draws under the present values of `variables`, always `width` rows at once."""

    def __init__(self, variables: Variables, heads: Heads, *, units: int, width: int) -> None:
        self._heads = heads
        self._units = units
        self._width = width
        self._step = tf.function(lambda carry, previous, current: policy_step(variables, carry, previous, current))

    def propose(self, space: Space, seed: int, draws: Sequence[Draw]) -> list[Proposal]:
        """One proposal per draw, at most `width`. Raises NewKindError."""
        rows = [_Row(space, seed, draw) for draw in draws]
        carry: Any = zero_carry(self._width, self._heads.slots, self._units)
        previous = self._no_answers()
        while any(row.walk.decision is not None for row in rows):
            current, slots = self._decisions(rows)
            option_log_probs, link_logits, carry = self._step(carry, previous, current)
            previous = self._answers(rows, slots, option_log_probs.numpy(), link_logits.numpy())
        return [Proposal(row.walk.tokens, tuple(row.log_probs)) for row in rows]

    def _no_answers(self) -> Previous:
        zeros = np.zeros(self._width, np.int32)
        return Previous(zeros + START, zeros, zeros.copy(), np.zeros((self._width, self._heads.slots), np.float32))

    def _decisions(self, rows: Sequence[_Row]) -> tuple[Current, list[int]]:
        """The rows' current decisions as arrays, and the slot that each row's `Links` fills."""
        kind = np.zeros(self._width, np.int32)
        allowed = np.ones((self._width, self._heads.width), bool)
        slot = np.zeros((self._width, self._heads.slots), np.float32)
        filled = [-1] * len(rows)
        for index, row in enumerate(rows):
            decision = row.walk.decision
            if isinstance(decision, Choice):
                if decision.kind not in self._heads.rows:
                    raise NewKindError(row.walk)
                kind[index] = self._heads.rows[decision.kind]
                allowed[index] = False
                allowed[index, : len(decision.options)] = decision.allowed or True
            elif isinstance(decision, Links):
                row.earlier = list(row.anchors.earlier(decision.kind))
                filled[index] = row.anchors.fill(decision.kind)
                if filled[index] >= self._heads.slots:
                    raise NewKindError(row.walk)
                slot[index, filled[index]] = 1.0
        return Current(kind, allowed, slot), filled

    def _answers(
        self, rows: Sequence[_Row], slots: Sequence[int], option_log_probs: np.ndarray, link_logits: np.ndarray
    ) -> Previous:
        previous = self._no_answers()
        for index, row in enumerate(rows):
            decision = row.walk.decision
            if isinstance(decision, Choice):
                token = row.choose(decision, option_log_probs[index])
                previous.mode[index] = EMBEDDING
                previous.kind[index] = self._heads.rows[decision.kind]
                previous.token[index] = token
            elif isinstance(decision, Links):
                bits = row.link(decision, link_logits[index])
                previous.mode[index] = ANCHORS
                for bit, anchor in zip(bits, row.earlier, strict=True):
                    previous.chosen[index, anchor] = bit
        return previous


class _Row:
    """One child being drawn."""

    def __init__(self, space: Space, seed: int, draw: Draw) -> None:
        self.walk = space.walk(draw.number)
        self.anchors = AnchorSlots()
        self.earlier: list[int] = []
        self.log_probs: list[float | None] = []
        self._uniforms = stream(seed, draw.number, draw.attempt)
        self._draw = draw

    def choose(self, decision: Choice, log_probs: np.ndarray) -> int:
        (forced,) = decision.forced
        given = self._draw.answer(decision)
        if forced is not None:
            token = forced
        elif given is not None:
            (token,) = given
        else:
            probabilities = np.exp(log_probs[: len(decision.options)].astype(np.float64))
            if decision.allowed is not None:
                probabilities *= decision.allowed
            cumulative = np.cumsum(probabilities)
            token = int(np.searchsorted(cumulative, self._uniforms.random() * cumulative[-1], side="right"))
        self.log_probs.append(None if forced is not None else float(log_probs[token]))
        self.walk.answer((token,))
        return token

    def link(self, decision: Links, logits: np.ndarray) -> tuple[int, ...]:
        given = self._draw.answer(decision)
        bits = []
        for index, (forced, anchor) in enumerate(zip(decision.forced, self.earlier, strict=True)):
            logit = float(logits[anchor])
            if forced is not None:
                bit = forced
            elif given is not None:
                bit = given[index]
            else:
                bit = int(self._uniforms.random() < _sigmoid(logit))
            bits.append(bit)
            self.log_probs.append(None if forced is not None else _log_sigmoid(logit if bit else -logit))
        self.walk.answer(tuple(bits))
        return tuple(bits)


def _sigmoid(x: float) -> float:
    return math.exp(_log_sigmoid(x))


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x
