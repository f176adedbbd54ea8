"""Draws many children in lockstep: one step of the policy per decision, the generators in between."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import threadpoolctl

from controllers.base import Draw, Proposal
from controllers.keyed import stream
from controllers.reinforce.heads import Heads, Places
from controllers.reinforce.lockstep import Lockstep
from controllers.reinforce.policy import Variables
from search_spaces.decisions import Choice, Decision, Links
from search_spaces.space import Space
from search_spaces.walk import Walk


def propose(
    space: Space, seed: int, draws: Sequence[Draw], weights: Variables, heads: Heads, *, width: int
) -> list[tuple[Proposal, Walk]]:
    """One proposal per draw, of which there are at most `width`, with its finished walk. Raises NewKindError.

    Args:
        weights: float32 arrays in place of the variables.
    """
    # One thread: products so small gain nothing by more, and the workers want the cores.
    with _libraries().limit(limits=1, user_api="blas"):
        policy = Lockstep(weights, heads, width=width)
        rows = [_Row(place, space, seed, draw, heads) for place, draw in enumerate(draws)]
        while pending := [(row, decision) for row in rows if (decision := row.walk.decision) is not None]:
            policy.advance()
            _choose(policy, [(row, decision) for row, decision in pending if isinstance(decision, Choice)])
            _link(policy, [(row, decision) for row, decision in pending if isinstance(decision, Links)])
    return [(Proposal(row.walk.tokens, tuple(row.log_probs)), row.walk) for row in rows]


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _choose(policy: Lockstep, pending: Sequence[tuple[_Row, Choice]]) -> None:
    if not pending:
        return
    kinds = {row.place: row.places.row(choice) for row, choice in pending}
    logits, sums = policy.options(kinds)
    policy.take_options(kinds, [row.choose(choice, logits[row.place], sums[row.place]) for row, choice in pending])


def _link(policy: Lockstep, pending: Sequence[tuple[_Row, Links]]) -> None:
    if not pending:
        return
    logits = policy.link_logits()
    slots = {row.place: row.places.slot(links) for row, links in pending}
    policy.keep_anchors({place: slot for place, (slot, _) in slots.items()})
    for row, links in pending:
        _, earlier = slots[row.place]
        policy.take_links(row.place, row.link(links, earlier, logits[row.place]))


class _Row:
    """One child being drawn, in its place in the lockstep."""

    def __init__(self, place: int, space: Space, seed: int, draw: Draw, heads: Heads) -> None:
        self.place = place
        self.walk = space.walk(draw.number)
        self.places = Places(heads)
        self.log_probs: list[float | None] = []
        self._seed = seed
        self._draw = draw

    @functools.cached_property
    def _uniforms(self) -> Iterator[float]:
        generator = stream(self._seed, self._draw.number, self._draw.attempt)
        while True:
            yield from generator.random(32).tolist()  # the same numbers as one by one, and quicker

    def choose(self, choice: Choice, logits: Sequence[float], sums: Sequence[float]) -> int:
        """The option, forced, given or drawn; the walk goes on with it.

        Args:
            logits, sums: of `Lockstep.options`.
        """
        (forced,) = choice.forced
        if forced is not None:
            self.log_probs.append(None)
            self.walk.answer((forced,))
            return forced
        if choice.allowed is not None:
            logits = [logit if allowed else -math.inf for logit, allowed in zip(logits, choice.allowed, strict=False)]
            highest = max(logits)  # of those that narrowing leaves, which may all be far below the rest
            logits = [logit - highest for logit in logits]
            sums = list(itertools.accumulate(map(math.exp, logits)))
        given = self._given(choice)
        token = bisect.bisect_right(sums, next(self._uniforms) * sums[-1]) if given is None else given[0]
        self.log_probs.append(logits[token] - math.log(sums[-1]))
        self.walk.answer((token,))
        return token

    def link(self, links: Links, earlier: Sequence[int], logits: Sequence[float]) -> list[int]:
        """The slots of the linked anchors, forced, given or drawn; the walk goes on with them."""
        given = self._given(links) or (None,) * links.count
        bits = []
        for slot, forced, wanted in zip(earlier, links.forced, given, strict=True):
            if forced is not None:
                bits.append(forced)
                self.log_probs.append(None)
                continue
            logit = logits[slot]
            log_prob = _log_sigmoid(logit)
            bit = int(next(self._uniforms) < math.exp(log_prob)) if wanted is None else wanted
            bits.append(bit)
            self.log_probs.append(log_prob if bit else log_prob - logit)  # log sigmoid(-x) = log sigmoid(x) - x
        self.walk.answer(tuple(bits))
        return [slot for slot, bit in zip(earlier, bits, strict=True) if bit]

    def _given(self, decision: Decision) -> tuple[int, ...] | None:
        return self._draw.answer(decision) if self._draw.given else None


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x
