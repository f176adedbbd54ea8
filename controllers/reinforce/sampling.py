"""Draws many children in lockstep: one compiled step of the policy per decision, the generators in between."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from controllers.base import Draw, Proposal
from controllers.keyed import stream
from controllers.reinforce.encoding import ChildEncoder, first_inputs, pack, padding, unpack
from controllers.reinforce.heads import Heads
from controllers.reinforce.policy import Carry, Current, Previous, Variables, policy_step
from search_spaces.decisions import Choice, Decision, Links
from search_spaces.space import Space


class Sampler:
    """Draws under the present values of `variables`, always equally many rows at once: `width` or a few more."""

    def __init__(self, variables: Variables, heads: Heads, *, units: int, width: int) -> None:
        self._heads = heads
        self._units = units
        # In whole blocks: in a part of one, a matrix product's last bit depends on the row that a child stands in.
        self._width = math.ceil(width / 8) * 8
        self._variables = variables

    @functools.cached_property
    def _step(self) -> Any:
        """The traced graph itself: to have `tf.function` look it up again costs as much as a step."""
        slots, units = self._heads.slots, self._units
        shapes = ((self._width, (4 + slots) * units), (self._width, 4 + self._heads.width + 2 * slots))
        return tf.function(self._packed_step, jit_compile=self._heads.compiled).get_concrete_function(
            *(tf.TensorSpec(shape, tf.float32) for shape in shapes)
        )

    def propose(self, space: Space, seed: int, draws: Sequence[Draw]) -> list[Proposal]:
        """One proposal per draw, at most `width`. Raises NewKindError."""
        rows = [_Row(space, seed, draw, self._heads) for draw in draws]
        carry = tf.zeros((self._width, (4 + self._heads.slots) * self._units))
        previous = first_inputs((self._width,), self._heads)
        while any(row.walk.decision is not None for row in rows):
            current = self._decisions(rows)
            found, carry = self._step(carry, tf.constant(pack(previous, current)))
            previous = self._answers(rows, found.numpy())
        return [Proposal(row.walk.tokens, tuple(row.log_probs)) for row in rows]

    def _packed_step(self, carry: tf.Tensor, packed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`policy_step` with one tensor per record: handing over many small ones costs more than the step itself."""
        slots, units = self._heads.slots, self._units
        hidden_0, cell_0, hidden_1, cell_1, anchors = tf.split(carry, [units] * 4 + [slots * units], axis=1)
        before = Carry(hidden_0, cell_0, hidden_1, cell_1, tf.reshape(anchors, (self._width, slots, units)))
        options, links, after = policy_step(self._variables, before, *unpack(packed, self._heads))
        flat = tf.reshape(after.anchors, (self._width, slots * units))
        return tf.concat([options, links], axis=1), tf.concat([*after[:4], flat], axis=1)

    def _decisions(self, rows: Sequence[_Row]) -> Current:
        current = padding((self._width,), self._heads)
        for index, row in enumerate(rows):
            if row.walk.decision is not None:
                row.encoder.write_decision(current, index, row.walk.decision)
        return current

    def _answers(self, rows: Sequence[_Row], found: np.ndarray) -> Previous:
        # Plain lists: a row has a few numbers, for which arrays cost more than they save.
        options, links = (part.tolist() for part in np.split(found, [self._heads.width], axis=1))
        previous = first_inputs((self._width,), self._heads)
        for index, row in enumerate(rows):
            decision = row.walk.decision
            if decision is not None:
                answer = row.answer(decision, options[index], links[index])
                row.encoder.write_answer(previous, index, decision, answer)
        return previous


class _Row:
    """One child being drawn."""

    def __init__(self, space: Space, seed: int, draw: Draw, heads: Heads) -> None:
        self.walk = space.walk(draw.number)
        self.encoder = ChildEncoder(heads)
        self.log_probs: list[float | None] = []
        self._seed = seed
        self._draw = draw

    @functools.cached_property
    def _uniforms(self) -> np.random.Generator:
        return stream(self._seed, self._draw.number, self._draw.attempt)

    def answer(self, decision: Decision, option_log_probs: list[float], link_logits: list[float]) -> tuple[int, ...]:
        """The answer, forced, given or drawn; the walk goes on with it."""
        if isinstance(decision, Choice):
            answer = self._choose(decision, option_log_probs)
        else:
            answer = self._link(decision, link_logits)
        self.walk.answer(answer)
        return answer

    def _choose(self, decision: Choice, log_probs: list[float]) -> tuple[int, ...]:
        (forced,) = decision.forced
        given = self._draw.answer(decision)
        if forced is not None:
            token = forced
        elif given is not None:
            (token,) = given
        else:
            chances = (
                math.exp(log_probs[index]) if decision.allows(index) else 0.0 for index in range(len(decision.options))
            )
            cumulative = list(itertools.accumulate(chances))
            token = bisect.bisect_right(cumulative, self._uniforms.random() * cumulative[-1])
        self.log_probs.append(None if forced is not None else log_probs[token])
        return (token,)

    def _link(self, decision: Links, logits: list[float]) -> tuple[int, ...]:
        given = self._draw.answer(decision)
        bits = []
        for index, (forced, anchor) in enumerate(zip(decision.forced, self.encoder.earlier, strict=True)):
            logit = logits[anchor]
            if forced is not None:
                bit = forced
            elif given is not None:
                bit = given[index]
            else:
                bit = int(self._uniforms.random() < _sigmoid(logit))
            bits.append(bit)
            self.log_probs.append(None if forced is not None else _log_sigmoid(logit if bit else -logit))
        return tuple(bits)


def _sigmoid(x: float) -> float:
    return math.exp(_log_sigmoid(x))


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x
