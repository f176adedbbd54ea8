"""Turns draws into new children within the limits, and finds out when a space is exhausted."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from automl.controllers.base import Controller, Cost, Draw, PendingChild, Proposal
from automl.controllers.keyed import child_seed, stream
from automl.db.records import NewChild, Origin, Request
from automl.search_spaces.decisions import Choice
from automl.search_spaces.recorded import Catalogue, ChildMismatchError, decode_recorded
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_hash, spec_to_json
from automl.search_spaces.walk import Walk, possible_answers

REPEAT, INVALID = "repeat", "invalid"  # reasons of a refusal that are not limits
MAX_ATTEMPTS = 20  # draws for a child
DRAWS_AT_ONCE = 24  # once a number is drawn again: the prefix cache serves most of them, the rest fill one step
MOST_NEIGHBOURS = 1_000
KEPT_CANDIDATES = 4_096
MOST_PAIRS = 50_000  # of changes, from which neighbours at a distance of two changes are sampled
MOST_COMPARED = 8  # new candidates whose probabilities the controller compares
LARGEST_ENUMERATED = 100_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a child may cost; None is no limit. FLOPs are for one example, forward."""

    params: int | None = None
    flops: int | None = None


class Proposer:
    """Fills batches of children.

    A child that is repeated, that the task does not admit, or that is over a limit is refused and not stored. It is
    drawn again under (seed, number, attempt). After 20 attempts the proposer takes a neighbour of the first draw: it
    changes one unforced decision (one bit of a `Links`) and draws again those that depend on it. The most probable new
    neighbour is taken. If there is none, two decisions are changed. If that fails, any child left is taken, in a space
    small enough to enumerate or of those that the task lists.

    Args:
        seen: canonical hashes of the children proposed so far; updated with every proposal.
        catalogue: the decisions of these children; updated with every proposal.
        refused: the number of refused draws so far, by reason.
        admits: whether a spec may be a child of the search's task.
        listed: returns the children that the task admits, as values by decision; None if it does not list them.

    Attributes:
        pending: the children in flight, which the controller receives.
        refused: as the argument, updated with every refusal.
    """

    def __init__(
        self,
        space: Space,
        controller: Controller,
        cost: Callable[[object], Cost],
        limits: Limits,
        *,
        seed: int,
        seen: set[str],
        refused: Mapping[str, int],
        catalogue: Catalogue,
        admits: Callable[[object], bool] = lambda spec: True,
        listed: Callable[[], Iterable[Mapping[str, Any]] | None] = lambda: None,
    ) -> None:
        self.catalogue = catalogue
        self.pending: Sequence[PendingChild] = ()
        self._space = space
        self._controller = controller
        self._cost = cost
        self._admits = admits
        self._listed = listed
        self._limits = limits
        self._seed = seed
        self._seen = seen
        self.refused = Counter(refused)
        self._all: dict[str, tuple[int, ...]] | None = None
        # A policy that has converged draws the same few children again and again, with the same neighbours.
        cached = functools.lru_cache(KEPT_CANDIDATES)
        spec_of = cached(lambda tokens: space.decode(tokens).spec)
        self._hash_of = cached(lambda tokens: canonical_hash(spec_of(tokens), tokens))
        self._cost_of = cached(lambda tokens: cost(spec_of(tokens)))
        self._admitted = cached(lambda tokens: admits(spec_of(tokens)))
        self._determined = functools.lru_cache(KEPT_CANDIDATES)(functools.partial(_determined, space))

    def answer(
        self, requests: Sequence[Request], numbers: Sequence[int], *, batch: int, policy_step: int
    ) -> list[tuple[int, int | str, NewChild | None]]:
        """Makes the children of users' requests, under the first of these numbers.

        Returns:
            For each answered request, in order: its id, the child's number or the reason of a refusal, and the child
            or None. Requests for which there are no numbers left are not answered.
        """
        answers: list[tuple[int, int | str, NewChild | None]] = []
        free = list(numbers)
        for request in requests:
            if not free:
                break
            made = self._make(request, free[0], batch, policy_step)
            answers.append((request.id, made, None) if isinstance(made, str) else (request.id, free.pop(0), made))
        return answers

    def _make(self, request: Request, number: int, batch: int, policy_step: int) -> NewChild | str:
        """The child of a request, with its log-probabilities under the controller, or the reason of a refusal."""
        tokens = tuple(request.tokens)
        try:
            walk = self._space.decode(tokens)
            if request.spec is not None:
                decode_recorded(self._space, tokens, request.spec, None)
        except ChildMismatchError as error:
            return f"its tokens no longer make the child that was requested: {error}"
        except ValueError as error:
            return str(error)
        answers = walk.answers
        (proposal,) = self._controller.ask([Draw(number, 0, answers)], self.pending)
        if proposal.tokens != tokens:
            return "it is outside what --fix, --only or the schedule leaves"
        reason = self._refusal(tokens)
        if reason is not None:
            told = {REPEAT: "the search has it already", INVALID: "the task of the search does not admit it"}
            return told.get(reason, "it is over a limit of the search")
        return self._accept(number, proposal, batch, policy_step, Origin.USER, 0)

    def propose(
        self, numbers: Sequence[int], *, batch: int, policy_step: int, made: Sequence[NewChild] = ()
    ) -> list[NewChild]:
        """Proposes children for these numbers, in order; fewer if the space is exhausted.

        Args:
            made: the children that `answer` returned, which have their numbers already.
        """
        children = {child.number: child for child in made}
        first_draws: dict[int, Proposal] = {}
        attempts = dict.fromkeys(numbers, 0)
        while pending := [number for number in numbers if number not in children and attempts[number] < MAX_ATTEMPTS]:
            for draw, proposal in self._draw(pending, attempts, children.values()):
                number = draw.number
                if number in children:
                    continue
                attempts[number] = draw.attempt + 1
                first_draws.setdefault(number, proposal)
                reason = self._refusal(proposal.tokens)
                if reason is None:
                    children[number] = self._accept(number, proposal, batch, policy_step, Origin.POLICY, draw.attempt)
                else:
                    self.refused[reason] += 1
        while (missing := next((number for number in numbers if number not in children), None)) is not None:
            neighbour = self._neighbour(missing, first_draws[missing])
            if neighbour is not None:
                children[missing] = self._accept(missing, neighbour, batch, policy_step, Origin.NEIGHBOUR, MAX_ATTEMPTS)
                continue
            if max(children, default=-1) < missing or max(children) in {child.number for child in made}:
                break
            # Numbers must have no gap: the last child of the batch is dropped, and may be found again for this number.
            self._seen.discard(children.pop(max(children)).canonical_hash)
        return [children[number] for number in numbers if number in children]

    def _draw(
        self, pending: Sequence[int], attempts: Mapping[int, int], accepted: Iterable[NewChild]
    ) -> list[tuple[Draw, Proposal]]:
        """Makes the next draw of each number.

        Once a number is drawn again, its following attempts are drawn too, since eight draws cost hardly more than one.
        Draws are in order of attempts, so that a later one is used only if the earlier ones are refused. A sequential
        controller makes one draw at a time; it sees the accepted children of this batch.
        """
        if self._controller.sequential:
            in_flight = (*self.pending, *(PendingChild(child.number, child.tokens) for child in accepted))
            draw = Draw(pending[0], attempts[pending[0]])
            (proposal,) = self._controller.ask([draw], in_flight)
            return [(draw, proposal)]
        redraws = any(attempts[number] for number in pending)
        at_once = max(1, DRAWS_AT_ONCE // len(pending)) if redraws else 1
        draws = [
            Draw(number, attempts[number] + ahead)
            for ahead in range(at_once)
            for number in pending
            if attempts[number] + ahead < MAX_ATTEMPTS
        ]
        return list(zip(draws, self._controller.ask(draws, self.pending), strict=True))

    def _refusal(self, tokens: tuple[int, ...]) -> str | None:
        """Why this child is refused: it repeats an earlier one, the task does not admit it, or it is over a limit. None
        if it is accepted."""
        if self._hash_of(tokens) in self._seen:
            return REPEAT
        return self._over(self._cost_of(tokens)) if self._admitted(tokens) else INVALID

    def _over(self, cost: Cost) -> str | None:
        """The limit that a child of this cost exceeds, or None."""
        if self._limits.params is not None and (cost.params or 0) > self._limits.params:
            return "max_params"
        if self._limits.flops is not None and (cost.flops or 0) > self._limits.flops:
            return "max_flops"
        return None

    def _accept(
        self, number: int, proposal: Proposal, batch: int, policy_step: int, origin: Origin, tries: int
    ) -> NewChild:
        tokens = proposal.tokens
        cost = self._cost_of(tokens)
        walk = self._space.decode(tokens)
        self._seen.add(self._hash_of(tokens))
        return NewChild(
            number=number,
            batch=batch,
            policy_step=policy_step,
            origin=origin,
            tries=tries,
            tokens=tokens,
            log_probs=proposal.log_probs,
            canonical_hash=self._hash_of(tokens),
            spec=spec_to_json(walk.spec),
            decisions=self.catalogue.numbers_of(walk.decisions),
            seed=child_seed(self._seed, number),
            params=cost.params,
            flops=cost.flops,
        )

    def _neighbour(self, number: int, drawn: Proposal) -> Proposal | None:
        answers = self._space.decode(drawn.tokens).answers
        changes = self._changes(number, drawn.tokens)
        best = self._most_probable(number, ({**answers, **change} for change in changes))
        if best is None:
            pairs = itertools.islice(itertools.combinations(changes, 2), MOST_PAIRS)
            apart = [(one, other) for one, other in pairs if one.keys() != other.keys()]
            sampled = self._shuffled(number, apart, most=MOST_NEIGHBOURS)
            best = self._most_probable(number, ({**answers, **one, **other} for one, other in sampled))
        return best or self._most_probable(number, self._left(number))

    def _most_probable(self, number: int, candidates: Iterable[Mapping[str, tuple[int, ...]]]) -> Proposal | None:
        may_be_new = (given for given in candidates if self._may_be_new(number, given))
        compared = list(itertools.islice(may_be_new, MOST_COMPARED))
        if not compared:
            return None
        proposals = self._controller.ask([Draw(number, MAX_ATTEMPTS, given) for given in compared], self.pending)
        ranked = sorted(proposals, key=lambda proposal: -proposal.log_prob)
        return next((proposal for proposal in ranked if self._refusal(proposal.tokens) is None), None)

    def _may_be_new(self, number: int, given: Mapping[str, tuple[int, ...]]) -> bool:
        """False if the given answers determine the whole child and it would be refused."""
        tokens = self._determined(number if self._space.schedule else 0, tuple(given.items()))
        return tokens is None or self._refusal(tokens) is None

    def _changes(self, number: int, tokens: tuple[int, ...]) -> list[dict[str, tuple[int, ...]]]:
        """Every change of one unforced decision: another option of a choice, or one flipped bit of a `Links`.

        The changes are shuffled, because equally probable neighbours must not all change the first decision.
        """
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
        """The answers of some children that were not proposed yet; none if the space is too large to enumerate and the
        task does not list its children."""
        if self._all is None or self._space.schedule is not None:
            self._all = self._enumerated(number)
        left = [tokens for child_hash, tokens in self._all.items() if child_hash not in self._seen]
        return [self._space.decode(tokens).answers for tokens in self._shuffled(number, left, most=MOST_COMPARED)]

    def _enumerated(self, number: int) -> dict[str, tuple[int, ...]]:
        """The tokens of every child within the limits, by canonical hash; none if the space is too large and the task
        does not list its children."""
        walks = list(itertools.islice(self._space.enumerate(number), LARGEST_ENUMERATED + 1))
        if len(walks) > LARGEST_ENUMERATED:
            walks = list(self._listed_walks(number))
        return {
            canonical_hash(walk.spec, walk.tokens): walk.tokens
            for walk in walks
            if self._admits(walk.spec) and self._over(self._cost(walk.spec)) is None
        }

    def _listed_walks(self, number: int) -> Iterator[Walk]:
        """The finished walks of the children that the task lists, as far as the space has them under this number."""
        for values in self._listed() or ():
            try:
                answers = self._space.decode(self._space.encode(values, more=True)).answers
            except ValueError:  # a space of the user's own may have fewer options than the task, or other decisions
                continue
            if (tokens := _determined(self._space, number, tuple(answers.items()))) is not None:
                yield self._space.decode(tokens)

    def _shuffled(self, number: int, items: Sequence[Any], most: int | None = None) -> list[Any]:
        """The items, or `most` of them, in a random order that depends on the number."""
        order = stream(self._seed, number, MAX_ATTEMPTS + 1).permutation(len(items))
        return [items[index] for index in order[:most].tolist()]


def _determined(space: Space, number: int, given: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[int, ...] | None:
    """The tokens of the child that the given answers determine, or None if they leave a decision open."""
    draw = Draw(number, MAX_ATTEMPTS, dict(given))
    walk = space.walk(number)
    while (decision := walk.decision) is not None:
        answer = draw.answer(decision)
        if answer is None:
            return None
        walk.answer(answer)
    return walk.tokens
