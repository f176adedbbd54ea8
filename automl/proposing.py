"""From draws to children worth training: no repeats, nothing over a limit, and an end when none is left."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from controllers.base import Controller, Draw, Proposal
from controllers.keyed import child_seed, stream
from db.records import NewChild, Origin, Request
from search_spaces.decisions import Choice
from search_spaces.space import Space
from search_spaces.walk import Walk, canonical_hash, possible_answers, spec_to_json

TRIES = 20
AHEAD = 8  # draws that are made together, later tries among them
MOST_NEIGHBOURS = 1_000
KEPT_CANDIDATES = 4_096
MOST_PAIRS = 50_000  # of changes, from which the neighbours two changes away are picked
MOST_WEIGHED = 8  # new candidates that the controller weighs against each other
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
    """What decides whether a child may be proposed."""

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
        self._all: dict[str, tuple[int, ...]] | None = None
        # A policy that has made up its mind draws the same few children, and their neighbours are the same too.
        self._candidate = functools.lru_cache(KEPT_CANDIDATES)(self._candidate)  # type: ignore[method-assign]
        self._settled = functools.lru_cache(KEPT_CANDIDATES)(self._settled)  # type: ignore[method-assign]

    def answer(
        self, requests: Sequence[Request], numbers: Sequence[int], *, batch: int, drawn_under: int
    ) -> list[tuple[int, int | str, NewChild | None]]:
        """Makes children of people's requests, under the first of these numbers.

        Returns:
            for each request that was answered, in order: its id, the child's number or why it was refused, and the
            child. Where there are more requests than numbers, the rest is left.
        """
        answers: list[tuple[int, int | str, NewChild | None]] = []
        free = list(numbers)
        for request in requests:
            if not free:
                break
            made = self._make(request, free[0], batch, drawn_under)
            answers.append((request.id, made, None) if isinstance(made, str) else (request.id, free.pop(0), made))
        return answers

    def _make(self, request: Request, number: int, batch: int, drawn_under: int) -> NewChild | str:
        """The child of a request, with its log-probabilities under the controller, or why it cannot be one."""
        tokens = tuple(request.tokens)
        try:
            answers = self._space.decode(tokens).answers
        except ValueError as error:
            return str(error)
        (proposal,) = self._controller.ask([Draw(number, 0, answers)])
        if proposal.tokens != tokens:
            return "it is outside what --fix, --only or the schedule leaves"
        candidate = self._examine(tokens, count=False)
        if candidate is None:
            known = self._candidate(tokens).hash in self._seen
            return "the search has it already" if known else "it is over a limit of the search"
        return self._accept(number, proposal, candidate, batch, drawn_under, Origin.PERSON, 0)

    def propose(
        self, numbers: Sequence[int], *, batch: int, drawn_under: int, made: Sequence[NewChild] = ()
    ) -> list[NewChild]:
        """Children of these numbers, in their order; fewer where the space is exhausted.

        Args:
            made: those of `answer`, which have their numbers already.
        """
        children = {child.number: child for child in made}
        first_draws: dict[int, Proposal] = {}
        tried = dict.fromkeys(numbers, 0)
        while pending := [number for number in numbers if number not in children and tried[number] < TRIES]:
            for draw, proposal in self._draw(pending, tried):
                number = draw.number
                if number in children:
                    continue
                tried[number] = draw.attempt + 1
                first_draws.setdefault(number, proposal)
                candidate = self._examine(proposal.tokens)
                if candidate is not None:
                    children[number] = self._accept(
                        number, proposal, candidate, batch, drawn_under, Origin.POLICY, draw.attempt
                    )
        while (missing := next((number for number in numbers if number not in children), None)) is not None:
            found = self._neighbour(missing, first_draws[missing])
            if found is not None:
                proposal, candidate = found
                children[missing] = self._accept(
                    missing, proposal, candidate, batch, drawn_under, Origin.NEIGHBOUR, TRIES
                )
                continue
            if max(children, default=-1) < missing or max(children) in {child.number for child in made}:
                break
            # Numbers have no gap: the last child of the batch gives way, and may come back under this number.
            self._seen.discard(children.pop(max(children)).canonical_hash)
        return [children[number] for number in numbers if number in children]

    def _draw(self, pending: Sequence[int], tried: Mapping[int, int]) -> list[tuple[Draw, Proposal]]:
        """The next draw of each number, and after the first ones later tries beside them, since a draw costs the same
        alone as in company. In order of tries, so that a later one counts only if no earlier did."""
        redraws = any(tried[number] for number in pending)
        ahead = max(1, AHEAD // len(pending)) if redraws else 1
        draws = [
            Draw(number, tried[number] + try_ahead)
            for try_ahead in range(ahead)
            for number in pending
            if tried[number] + try_ahead < TRIES
        ]
        return list(zip(draws, self._controller.ask(draws), strict=True))

    def _examine(self, tokens: tuple[int, ...], *, count: bool = True) -> _Candidate | None:
        """The child of these tokens, or None where it is refused (and counted, unless it was only looked at)."""
        candidate = self._candidate(tokens)
        reason = self._refusal(candidate)
        if reason is None:
            return candidate
        if count:
            self.refused[reason] += 1
        return None

    def _candidate(self, tokens: tuple[int, ...]) -> _Candidate:
        return self._candidate_of(self._space.decode(tokens))

    def _candidate_of(self, walk: Walk) -> _Candidate:
        return _Candidate(canonical_hash(walk.spec, walk.tokens), self._cost(walk.spec))

    def _refusal(self, candidate: _Candidate) -> str | None:
        """Why this child is not proposed, or None: it was before, or it is over a limit."""
        if candidate.hash in self._seen:
            return "repeat"
        if self._limits.params is not None and (candidate.cost.params or 0) > self._limits.params:
            return "max_params"
        if self._limits.flops is not None and (candidate.cost.flops or 0) > self._limits.flops:
            return "max_flops"
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
            spec=spec_to_json(self._space.decode(proposal.tokens).spec),
            seed=child_seed(self._seed, number),
            params=candidate.cost.params,
            flops=candidate.cost.flops,
        )

    def _neighbour(self, number: int, drawn: Proposal) -> tuple[Proposal, _Candidate] | None:
        answers = self._space.decode(drawn.tokens).answers
        changes = self._changes(number, drawn.tokens)
        found = self._most_probable(number, ({**answers, **change} for change in changes))
        if found is None:
            pairs = itertools.islice(itertools.combinations(changes, 2), MOST_PAIRS)
            apart = [(one, other) for one, other in pairs if one.keys() != other.keys()]
            picked = self._shuffled(number, apart, most=MOST_NEIGHBOURS)
            found = self._most_probable(number, ({**answers, **one, **other} for one, other in picked))
        return found or self._most_probable(number, self._left(number))

    def _most_probable(
        self, number: int, candidates: Iterable[Mapping[str, tuple[int, ...]]]
    ) -> tuple[Proposal, _Candidate] | None:
        may_be_new = (given for given in candidates if self._may_be_new(number, given))
        open_candidates = list(itertools.islice(may_be_new, MOST_WEIGHED))
        if not open_candidates:
            return None
        proposals = self._controller.ask([Draw(number, TRIES, given) for given in open_candidates])
        for proposal in sorted(proposals, key=lambda proposal: -proposal.log_prob):
            candidate = self._examine(proposal.tokens, count=False)
            if candidate is not None:
                return proposal, candidate
        return None

    def _may_be_new(self, number: int, given: Mapping[str, tuple[int, ...]]) -> bool:
        """False where the given answers settle the whole child and it would be refused: no need to weigh it."""
        settled = self._settled(number if self._space.schedule else 0, tuple(given.items()))
        return settled is None or self._refusal(settled) is None

    def _settled(self, number: int, given: tuple[tuple[str, tuple[int, ...]], ...]) -> _Candidate | None:
        """The child that these answers settle, or None where they leave something open."""
        draw = Draw(number, TRIES, dict(given))
        walk = self._space.walk(number)
        while (decision := walk.decision) is not None:
            answer = draw.answer(decision)
            if answer is None:
                return None
            walk.answer(answer)
        return self._candidate_of(walk)

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
        """Some children that were not proposed yet, of a space small enough to enumerate."""
        if self._all is None or self._space.schedule is not None:
            self._all = self._enumerated(number)
        left = [tokens for fingerprint, tokens in self._all.items() if fingerprint not in self._seen]
        return [self._space.decode(tokens).answers for tokens in self._shuffled(number, left, most=MOST_WEIGHED)]

    def _enumerated(self, number: int) -> dict[str, tuple[int, ...]]:
        """Tokens by canonical hash of every child within the limits; none where the space is too large."""
        walks = list(itertools.islice(self._space.enumerate(number), LARGEST_ENUMERATED + 1))
        if len(walks) > LARGEST_ENUMERATED:
            return {}
        candidates = ((self._candidate_of(walk), walk.tokens) for walk in walks)
        return {
            candidate.hash: tokens
            for candidate, tokens in candidates
            if self._refusal(candidate) in (None, "repeat")  # of which `_left` knows better later
        }

    def _shuffled(self, number: int, items: Sequence[Any], most: int | None = None) -> list[Any]:
        """The items, or `most` of them, in an order of this number's own."""
        order = stream(self._seed, number, TRIES + 1).permutation(len(items))
        return [items[index] for index in order[:most].tolist()]
