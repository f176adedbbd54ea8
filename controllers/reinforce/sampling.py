"""Draws children from the policy: one step per decision. The space's generators run between the steps."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from automl.controllers.base import Draw, Proposal
from automl.controllers.keyed import stream
from automl.controllers.reinforce.heads import Heads, Places
from automl.controllers.reinforce.lockstep import ROWS, Lockstep
from automl.controllers.reinforce.policy import Weights
from automl.controllers.single_thread import single_threaded
from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

MAX_CACHED_STEPS = 20_000


class Drawn(NamedTuple):
    """A child and its finished walk."""

    proposal: Proposal
    walk: Walk


Branches = dict[Hashable, "_Step | Drawn"]  # by the answer of the step before


class Sampler:
    """Draws children from a policy with fixed weights.

    It has a prefix cache: it reuses the policy's output for token prefixes that were computed before. A policy that has
    converged draws the same children repeatedly, which then takes a tenth of the time.

    Args:
        weights: float32 arrays.
    """

    def __init__(self, space: Space, seed: int, weights: Weights, heads: Heads) -> None:
        self._space = space
        self._seed = seed
        self._weights = weights
        self._heads = heads
        self._roots: Branches = {}  # first steps, by what a schedule forces
        self._num_steps = 0

    def propose(self, draws: Sequence[Draw]) -> list[Drawn]:
        """One child per draw. Raises NewKindError."""
        children = [self._cached(draw) for draw in draws]
        missing = [index for index, child in enumerate(children) if child is None]
        for start in range(0, len(missing), ROWS):
            indices = missing[start : start + ROWS]
            new = self._draw([draws[index] for index in indices])
            for index, child in zip(indices, new, strict=True):
                children[index] = child
        return [child for child in children if child is not None]

    def _cached(self, draw: Draw) -> Drawn | None:
        """The child of a draw, if the cache has all of its steps."""
        uniforms = _uniforms(self._seed, draw)
        step = self._roots.get(self._root_key(draw))
        while isinstance(step, _Step):
            step = step.branches.get(step.answer(draw, uniforms))
        return step

    @single_threaded
    def _draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        policy = Lockstep(self._weights, self._heads)
        rows = [
            _Row(
                index,
                draw,
                self._space.walk(draw.number),
                Places(self._heads),
                _uniforms(self._seed, draw),
                self._roots,
                self._root_key(draw),
            )
            for index, draw in enumerate(draws)
        ]
        while pending := [(row, decision) for row in rows if (decision := row.walk.decision) is not None]:
            policy.advance()
            self._answer_choices(policy, [(row, decision) for row, decision in pending if isinstance(decision, Choice)])
            self._answer_links(policy, [(row, decision) for row, decision in pending if isinstance(decision, Links)])
        return [self._finish(row) for row in rows]

    def _answer_choices(self, policy: Lockstep, pending: Sequence[tuple[_Row, Choice]]) -> None:
        if not pending:
            return
        kinds = {row.index: row.places.row(choice) for row, choice in pending}
        logits, sums = policy.options(kinds)
        steps = [_ChoiceStep(choice, logits[row.index], sums[row.index]) for row, choice in pending]
        tokens = [self._answer(row, step)[0] for (row, _), step in zip(pending, steps, strict=True)]
        policy.set_option_inputs(kinds, tokens)

    def _answer_links(self, policy: Lockstep, pending: Sequence[tuple[_Row, Links]]) -> None:
        if not pending:
            return
        logits = policy.link_logits()
        slots = {row.index: row.places.slot(links) for row, links in pending}
        policy.store_anchors({index: slot for index, (slot, _) in slots.items()})
        for row, links in pending:
            _, earlier = slots[row.index]
            bits = self._answer(row, _LinksStep(links, [logits[row.index][slot] for slot in earlier]))
            policy.set_links_input(row.index, [slot for slot, bit in zip(earlier, bits, strict=True) if bit])

    def _answer(self, row: _Row, step: _Step) -> tuple[int, ...]:
        """Answers a step, advances the child's walk and caches the step."""
        cached = row.branches.get(row.answer)
        if isinstance(cached, _Step):
            step = cached
        elif self._num_steps < MAX_CACHED_STEPS:
            row.branches[row.answer] = step
            self._num_steps += 1
        answer = step.answer(row.draw, row.uniforms)
        row.log_probs += step.log_probs(answer)
        row.walk.answer(answer)
        row.branches, row.answer = step.branches, answer
        return answer

    def _finish(self, row: _Row) -> Drawn:
        drawn = Drawn(Proposal(row.walk.tokens, tuple(row.log_probs)), row.walk)
        if self._num_steps < MAX_CACHED_STEPS:
            row.branches[row.answer] = drawn
        return drawn

    def _root_key(self, draw: Draw) -> Hashable:
        """The key of the child's first step in `_roots`: the values that a schedule forces for its number."""
        schedule = self._space.schedule
        return None if schedule is None else tuple((name, str(value)) for name, value in schedule(draw.number).items())


def _uniforms(seed: int, draw: Draw) -> Iterator[float]:
    generator = stream(seed, draw.number, draw.attempt)
    while True:
        yield from generator.random(32).tolist()  # equal to 32 single calls, but faster


@dataclasses.dataclass(slots=True)
class _Row:
    """A child being drawn, in one row of the lockstep.

    Attributes:
        branches, answer: the cache has the child's next step in `branches[answer]`.
    """

    index: int
    draw: Draw
    walk: Walk
    places: Places
    uniforms: Iterator[float]
    branches: Branches
    answer: Hashable
    log_probs: list[float | None] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Step:
    """The decision after one token prefix, and the policy's output for it.

    Attributes:
        branches: the next steps, by the answer to this one.
    """

    decision: Decision
    branches: Branches = dataclasses.field(default_factory=dict)

    def answer(self, draw: Draw, uniforms: Iterator[float]) -> tuple[int, ...]:
        """The answer that the draw gives, or a forced or sampled one."""
        given = draw.answer(self.decision) if draw.given else None
        return self.sample(uniforms) if given is None else given

    def sample(self, uniforms: Iterator[float]) -> tuple[int, ...]:
        raise NotImplementedError

    def log_probs(self, answer: Sequence[int]) -> list[float | None]:
        """The log-probability of each token of the answer; None where it is forced."""
        raise NotImplementedError


class _ChoiceStep(_Step):
    """
    Args:
        logits, sums: one row of each list of `Lockstep.options`, padded to the widest kind.
    """

    __slots__ = ("_forced", "_logits", "_sums")

    def __init__(self, choice: Choice, logits: Sequence[float], sums: Sequence[float]) -> None:
        super().__init__(choice)
        (self._forced,) = choice.forced
        count = len(choice.options) if self._forced is None else 0  # a forced choice needs no logits
        self._logits, self._sums = logits[:count], sums[:count]
        if choice.allowed is not None and count:
            narrowed = zip(self._logits, choice.allowed, strict=True)
            masked = [logit if allowed else -math.inf for logit, allowed in narrowed]
            highest = max(masked)  # of the allowed options, whose logits may all be far below 0
            self._logits = [logit - highest for logit in masked]
            self._sums = list(itertools.accumulate(map(math.exp, self._logits)))

    def sample(self, uniforms: Iterator[float]) -> tuple[int, ...]:
        if self._forced is not None:
            return (self._forced,)
        return (bisect.bisect_right(self._sums, next(uniforms) * self._sums[-1]),)

    def log_probs(self, answer: Sequence[int]) -> list[float | None]:
        return [None if self._forced is not None else self._logits[answer[0]] - math.log(self._sums[-1])]


class _LinksStep(_Step):
    """
    Args:
        logits: the log-odds of a link to each earlier layer.
    """

    __slots__ = ("_bits",)

    def __init__(self, links: Links, logits: Sequence[float]) -> None:
        super().__init__(links)
        # For each bit, its forced value or None, and the log-probabilities of 0 and of 1.
        self._bits = [
            (forced, (log_prob - logit, log_prob))  # log sigmoid(-x) = log sigmoid(x) - x
            for forced, logit, log_prob in zip(links.forced, logits, map(_log_sigmoid, logits), strict=True)
        ]

    def sample(self, uniforms: Iterator[float]) -> tuple[int, ...]:
        return tuple(
            [
                int(next(uniforms) < math.exp(log_prob)) if forced is None else forced
                for forced, (_, log_prob) in self._bits
            ]
        )

    def log_probs(self, answer: Sequence[int]) -> list[float | None]:
        return [
            log_probs[bit] if forced is None else None
            for bit, (forced, log_probs) in zip(answer, self._bits, strict=True)
        ]


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x
