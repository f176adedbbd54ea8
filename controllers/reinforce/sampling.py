"""Draws children under one state of the policy: one step per decision, the generators in between."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import threadpoolctl

from automl.controllers.base import Draw, Proposal
from automl.controllers.keyed import stream
from automl.controllers.reinforce.heads import Heads, Places
from automl.controllers.reinforce.lockstep import ROWS, Lockstep
from automl.controllers.reinforce.policy import Weights
from automl.search_spaces.decisions import Choice, Decision, Links
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk

MOST_STEPS = 20_000  # remembered


class Drawn(NamedTuple):
    """A child, and its walk that has come to its end."""

    proposal: Proposal
    walk: Walk


Following = dict[Hashable, "_Step | Drawn"]


class Sampler:
    """Draws, and remembers what the policy said after each beginning of a child: one that has made up its mind draws
    the same children again and again, which then takes a tenth of the time.

    Args:
        weights: float32 arrays.
    """

    def __init__(self, space: Space, seed: int, weights: Weights, heads: Heads) -> None:
        self._space = space
        self._seed = seed
        self._weights = weights
        self._heads = heads
        self._first: Following = {}  # by what a schedule forces
        self._num_steps = 0

    def propose(self, draws: Sequence[Draw]) -> list[Drawn]:
        """One child per draw. Raises NewKindError."""
        found = [self._recall(draw) for draw in draws]
        missing = [place for place, drawn in enumerate(found) if drawn is None]
        for start in range(0, len(missing), ROWS):
            places = missing[start : start + ROWS]
            # One thread: products so small gain nothing by more, and the workers want the cores.
            with _libraries().limit(limits=1, user_api="blas"):
                new = self._draw([draws[place] for place in places])
            for place, drawn in zip(places, new, strict=True):
                found[place] = drawn
        return [drawn for drawn in found if drawn is not None]

    def _recall(self, draw: Draw) -> Drawn | None:
        """The child, where all of its steps are remembered."""
        uniforms = _uniforms(self._seed, draw)
        at = self._first.get(self._forced(draw))
        while isinstance(at, _Step):
            at = at.following.get(at.answer(draw, uniforms))
        return at

    def _draw(self, draws: Sequence[Draw]) -> list[Drawn]:
        policy = Lockstep(self._weights, self._heads)
        rows = [
            _Row(
                place,
                draw,
                self._space.walk(draw.number),
                Places(self._heads),
                _uniforms(self._seed, draw),
                self._first,
                self._forced(draw),
            )
            for place, draw in enumerate(draws)
        ]
        while pending := [(row, decision) for row in rows if (decision := row.walk.decision) is not None]:
            policy.advance()
            self._choose(policy, [(row, decision) for row, decision in pending if isinstance(decision, Choice)])
            self._link(policy, [(row, decision) for row, decision in pending if isinstance(decision, Links)])
        return [self._end(row) for row in rows]

    def _choose(self, policy: Lockstep, pending: Sequence[tuple[_Row, Choice]]) -> None:
        if not pending:
            return
        kinds = {row.place: row.places.row(choice) for row, choice in pending}
        logits, sums = policy.options(kinds)
        steps = [_ChoiceStep(choice, logits[row.place], sums[row.place]) for row, choice in pending]
        tokens = [self._answer(row, step)[0] for (row, _), step in zip(pending, steps, strict=True)]
        policy.take_options(kinds, tokens)

    def _link(self, policy: Lockstep, pending: Sequence[tuple[_Row, Links]]) -> None:
        if not pending:
            return
        logits = policy.link_logits()
        slots = {row.place: row.places.slot(links) for row, links in pending}
        policy.keep_anchors({place: slot for place, (slot, _) in slots.items()})
        for row, links in pending:
            _, earlier = slots[row.place]
            bits = self._answer(row, _LinksStep(links, [logits[row.place][slot] for slot in earlier]))
            policy.take_links(row.place, [slot for slot, bit in zip(earlier, bits, strict=True) if bit])

    def _answer(self, row: _Row, step: _Step) -> tuple[int, ...]:
        """Answers a step and lets the walk go on; the step is remembered."""
        known = row.following.get(row.answer)
        if isinstance(known, _Step):
            step = known
        elif self._num_steps < MOST_STEPS:
            row.following[row.answer] = step
            self._num_steps += 1
        answer = step.answer(row.draw, row.uniforms)
        row.log_probs += step.log_probs(answer)
        row.walk.answer(answer)
        row.following, row.answer = step.following, answer
        return answer

    def _end(self, row: _Row) -> Drawn:
        drawn = Drawn(Proposal(row.walk.tokens, tuple(row.log_probs)), row.walk)
        if self._num_steps < MOST_STEPS:
            row.following[row.answer] = drawn
        return drawn

    def _forced(self, draw: Draw) -> Hashable:
        """What tells the first step of a child of this number from that of others."""
        schedule = self._space.schedule
        return None if schedule is None else tuple((name, str(value)) for name, value in schedule(draw.number).items())


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _uniforms(seed: int, draw: Draw) -> Iterator[float]:
    generator = stream(seed, draw.number, draw.attempt)
    while True:
        yield from generator.random(32).tolist()  # the same numbers as one by one, and quicker


@dataclasses.dataclass(slots=True)
class _Row:
    """One child being drawn, in its place in the lockstep.

    Attributes:
        following, answer: where its next step is remembered.
    """

    place: int
    draw: Draw
    walk: Walk
    places: Places
    uniforms: Iterator[float]
    following: Following
    answer: Hashable
    log_probs: list[float | None] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Step:
    """A decision after one beginning of a child, and what the policy says of it.

    Attributes:
        following: the steps after this one, by its answer.
    """

    decision: Decision
    following: Following = dataclasses.field(default_factory=dict)

    def answer(self, draw: Draw, uniforms: Iterator[float]) -> tuple[int, ...]:
        """Given, forced or drawn."""
        given = draw.answer(self.decision) if draw.given else None
        return self.drawn(uniforms) if given is None else given

    def drawn(self, uniforms: Iterator[float]) -> tuple[int, ...]:
        raise NotImplementedError

    def log_probs(self, answer: Sequence[int]) -> list[float | None]:
        """Of each token of the answer, None where it is forced."""
        raise NotImplementedError


class _ChoiceStep(_Step):
    """
    Args:
        logits, sums: those of `Lockstep.options`, as wide as the widest kind.
    """

    __slots__ = ("_forced", "_logits", "_sums")

    def __init__(self, choice: Choice, logits: Sequence[float], sums: Sequence[float]) -> None:
        super().__init__(choice)
        (self._forced,) = choice.forced
        count = len(choice.options) if self._forced is None else 0  # of what is forced nothing need be remembered
        self._logits, self._sums = logits[:count], sums[:count]
        if choice.allowed is not None and count:
            narrowed = zip(self._logits, choice.allowed, strict=True)
            kept = [logit if allowed else -math.inf for logit, allowed in narrowed]
            highest = max(kept)  # of those that narrowing leaves, which may all be far below the rest
            self._logits = [logit - highest for logit in kept]
            self._sums = list(itertools.accumulate(map(math.exp, self._logits)))

    def drawn(self, uniforms: Iterator[float]) -> tuple[int, ...]:
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
        # Of each bit what it is forced to, and the logarithms of the chances of 0 and of 1.
        self._bits = [
            (forced, (log_chance - logit, log_chance))  # log sigmoid(-x) = log sigmoid(x) - x
            for forced, logit, log_chance in zip(links.forced, logits, map(_log_sigmoid, logits), strict=True)
        ]

    def drawn(self, uniforms: Iterator[float]) -> tuple[int, ...]:
        return tuple(
            [
                int(next(uniforms) < math.exp(log_chance)) if forced is None else forced
                for forced, (_, log_chance) in self._bits
            ]
        )

    def log_probs(self, answer: Sequence[int]) -> list[float | None]:
        return [
            log_chances[bit] if forced is None else None
            for bit, (forced, log_chances) in zip(answer, self._bits, strict=True)
        ]


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x
