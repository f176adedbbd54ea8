"""From draws to children worth training: no repeats, nothing over a limit, and an end when none is left."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from controllers.base import Controller, Draw, Proposal
from controllers.keyed import child_seed, stream
from db.records import NewChild, Origin
from search_spaces.decisions import Choice
from search_spaces.space import Space
from search_spaces.walk import Walk, canonical_hash, possible_answers, spec_to_json

TRIES = 20
MOST_NEIGHBOURS = 1_000
LARGEST_ENUMERATED = 100_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a child may cost; None is no limit. FLOPs are for one example, forward."""

    params: int | None = None
    flops: int | None = None


@dataclasses.dataclass(frozen=True)
class Cost:
    """Parameters and FLOPs of a spec; None where the spec cannot say."""

    params: int | None
    flops: int | None


@dataclasses.dataclass(frozen=True)
class _Candidate:
    walk: Walk
    hash: str
    cost: Cost


class Proposer:
    """Fills batches of children.

    A repeat, and a draw over a limit, gets no row: it is drawn again under (seed, number, try). After 20 tries a
    neighbour of the first draw is taken: one unforced decision changed (one bit of a `Links`) and what depends on it
    drawn again, the most probable first; then two decisions; then, in a space small enough to enumerate, any child.

    Args:
        seen: canonical hashes of the children proposed so far; it grows with every child proposed here.
        refused: how many draws were refused so far, by reason; it grows likewise.
    """

    def __init__(
        self,
        space: Space,
        controller: Controller,
        cost: Callable[[Any], Cost],
        limits: Limits,
        *,
        seed: int,
        seen: set[str],
        refused: Mapping[str, int],
    ) -> None:
        self._space = space
        self._controller = controller
        self._cost = cost
        self._limits = limits
        self._seed = seed
        self._seen = seen
        self.refused = Counter(refused)
        self._all: list[tuple[int, ...]] | None = None

    def propose(self, numbers: Sequence[int], *, batch: int, drawn_under: int) -> list[NewChild]:
        """Children of these numbers, in their order; fewer where the space is exhausted."""
        children: dict[int, NewChild] = {}
        first_draws: dict[int, Proposal] = {}
        pending = list(numbers)
        for attempt in range(TRIES):
            proposals = self._controller.ask([Draw(number, attempt) for number in pending])
            refused = []
            for number, proposal in zip(pending, proposals, strict=True):
                first_draws.setdefault(number, proposal)
                candidate = self._examine(number, proposal.tokens)
                if candidate is None:
                    refused.append(number)
                else:
                    children[number] = self._accept(
                        number, proposal, candidate, batch, drawn_under, Origin.POLICY, attempt
                    )
            pending = refused
            if not pending:
                break
        for number in pending:
            found = self._neighbour(number, first_draws[number])
            if found is None:
                continue
            proposal, candidate = found
            children[number] = self._accept(number, proposal, candidate, batch, drawn_under, Origin.NEIGHBOUR, TRIES)
        # Numbers stay without a gap where some of the last batch could not be filled.
        ordered = [children[number] for number in numbers if number in children]
        return [
            dataclasses.replace(child, number=number, seed=child_seed(self._seed, number))
            for number, child in zip(numbers, ordered, strict=False)
        ]

    def _examine(self, number: int, tokens: tuple[int, ...], *, count: bool = True) -> _Candidate | None:
        """The decoded child, or None where it is refused (and counted, unless it was only looked at)."""
        walk = self._space.decode(tokens)
        fingerprint = canonical_hash(walk.spec, tokens)
        reason, cost = "repeat", Cost(None, None)
        if fingerprint not in self._seen:
            cost = self._cost(walk.spec)
            if self._limits.params is not None and (cost.params or 0) > self._limits.params:
                reason = "max_params"
            elif self._limits.flops is not None and (cost.flops or 0) > self._limits.flops:
                reason = "max_flops"
            else:
                return _Candidate(walk, fingerprint, cost)
        if count:
            self.refused[reason] += 1
        return None

    def _accept(
        self,
        number: int,
        proposal: Proposal,
        candidate: _Candidate,
        batch: int,
        drawn_under: int,
        origin: Origin,
        tries: int,
    ) -> NewChild:
        self._seen.add(candidate.hash)
        return NewChild(
            number=number,
            batch=batch,
            drawn_under=drawn_under,
            origin=origin,
            tries=tries,
            tokens=proposal.tokens,
            log_probs=proposal.log_probs,
            canonical_hash=candidate.hash,
            spec=spec_to_json(candidate.walk.spec),
            seed=child_seed(self._seed, number),
            params=candidate.cost.params,
            flops=candidate.cost.flops,
        )

    def _neighbour(self, number: int, drawn: Proposal) -> tuple[Proposal, _Candidate] | None:
        changes = self._changes(number, drawn.tokens)
        pairs = ({**one, **other} for one, other in itertools.combinations(changes, 2) if one.keys() != other.keys())
        for some in (changes, self._shuffled(number, itertools.islice(pairs, 50_000))[:MOST_NEIGHBOURS]):
            answers = self._space_answers(number, drawn.tokens)
            found = self._most_probable(number, [{**answers, **change} for change in some])
            if found is not None:
                return found
        return self._most_probable(number, self._left(number))

    def _most_probable(
        self, number: int, candidates: Sequence[Mapping[str, tuple[int, ...]]]
    ) -> tuple[Proposal, _Candidate] | None:
        if not candidates:
            return None
        proposals = self._controller.ask([Draw(number, TRIES, given) for given in candidates])
        for proposal in sorted(proposals, key=lambda proposal: -proposal.log_prob):
            candidate = self._examine(number, proposal.tokens, count=False)
            if candidate is not None:
                return proposal, candidate
        return None

    def _space_answers(self, number: int, tokens: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return self._space.decode(tokens).answers

    def _changes(self, number: int, tokens: tuple[int, ...]) -> list[dict[str, tuple[int, ...]]]:
        """Every change of one unforced decision: another option, or one bit turned; shuffled, since equally probable
        neighbours must not all change the first decision."""
        walk = self._space.walk(number)
        rest = tokens
        changes: list[dict[str, tuple[int, ...]]] = []
        while (decision := walk.decision) is not None:
            answer, rest = rest[: decision.num_tokens], rest[decision.num_tokens :]
            if isinstance(decision, Choice):
                others = [other for other in possible_answers(decision) if other != answer]
            else:
                others = [
                    (*answer[:index], 1 - answer[index], *answer[index + 1 :])
                    for index, forced in enumerate(decision.forced)
                    if forced is None
                ]
            changes += [{decision.name: other} for other in others]
            walk.answer(answer)
        return self._shuffled(number, changes)

    def _left(self, number: int) -> list[dict[str, tuple[int, ...]]]:
        """Children that were not proposed yet, of a space small enough to enumerate."""
        if self._all is None or self._space.schedule is not None:
            walks = list(itertools.islice(self._space.enumerate(number), LARGEST_ENUMERATED + 1))
            self._all = [walk.tokens for walk in walks] if len(walks) <= LARGEST_ENUMERATED else []
        left = (tokens for tokens in self._all if self._examine(number, tokens, count=False) is not None)
        return [self._space.decode(tokens).answers for tokens in self._shuffled(number, left)[:MOST_NEIGHBOURS]]

    def _shuffled(self, number: int, items: Iterator[Any] | Sequence[Any]) -> list[Any]:
        listed = list(items)
        order = stream(self._seed, number, TRIES + 1).permutation(len(listed))
        return [listed[index] for index in order]
