"""Runs a space's generator: gives the next decision, receives its answer, and keeps the spec at the end."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import Any, Protocol

from automl.search_spaces.decisions import Choice, Decision, Links


class Narrower(Protocol):
    def __call__(self, decision: Decision) -> Decision: ...


class Walk:
    """The construction of one child, decision by decision.

    `decision` is the next decision to answer. Once the space has returned, it is None, and `spec` is the returned
    value. `answer(tokens)` sends an answer. `tokens` and `answers` (tokens by decision name) grow with each answer.

    Raises ValueError if the space breaks its rules: a name is used twice, a kind has two numbers of options, the count
    of a `Links` is not the number of earlier `Links` of its kind, or a yielded value is not a decision.
    """

    def __init__(self, generator: Generator[Decision, Any, Any], narrower: Narrower | None = None) -> None:
        if not isinstance(generator, Generator):
            raise ValueError(
                f"A space must be a generator function that yields decisions; this one returned {generator!r} at once."
            )
        self._generator = generator
        self._narrower = narrower
        self._widths: dict[str, int] = {}
        self._links: dict[str, int] = {}
        self.decision: Decision | None = None
        self.decisions: list[Decision] = []
        self.answers: dict[str, tuple[int, ...]] = {}
        self.spec: object = None
        self._tokens: tuple[int, ...] | None = None  # of the answers so far; None until they are needed
        self._advance(None)

    @property
    def tokens(self) -> tuple[int, ...]:
        if self._tokens is None:
            self._tokens = tuple(itertools.chain.from_iterable(self.answers.values()))
        return self._tokens

    @property
    def forced(self) -> tuple[int | None, ...]:
        """For each token so far, its forced value, or None if it was free."""
        return tuple(itertools.chain.from_iterable(decision.forced for decision in self.decisions))

    def answer(self, tokens: tuple[int, ...]) -> None:
        decision = self.decision
        if decision is None:
            raise ValueError(f"The space has no decision left to answer with {tokens}.")
        if len(tokens) != decision.num_tokens:
            raise ValueError(f"{decision.name!r} takes {decision.num_tokens} tokens, got {len(tokens)}.")
        decision.check(tokens)
        self.decisions.append(decision)
        self.answers[decision.name] = tokens
        self._tokens = None
        self._advance(decision.value(tokens))

    def _advance(self, value: Any) -> None:
        try:
            decision = self._generator.send(value)
        except StopIteration as stop:
            self.decision, self.spec = None, stop.value
            return
        if not isinstance(decision, (Choice, Links)):
            raise ValueError(
                f"The space yielded {decision!r}; it may yield only Choice, Integer, Real, Ordinal and Links."
            )
        if decision.name in self.answers:
            raise ValueError(f"The space yielded the name {decision.name!r} twice; names are unique within a child.")
        if isinstance(decision, Links):
            expected = self._links.get(decision.kind, 0)
            if decision.count != expected:
                raise ValueError(
                    f"Links {decision.name!r} has count {decision.count}, but {expected} Links of kind "
                    f"{decision.kind!r} came before it; the count must equal their number."
                )
            self._links[decision.kind] = expected + 1
        else:
            width = self._widths.setdefault(decision.kind, len(decision.options))
            if width != len(decision.options):
                raise ValueError(
                    f"Choice {decision.name!r} has {len(decision.options)} options, but an earlier one of its kind "
                    f"{decision.kind!r} has {width}; choices of one kind have the same number of options."
                )
        self.decision = self._narrower(decision) if self._narrower else decision


def replay(walk: Walk, tokens: tuple[int, ...] | list[int]) -> Walk:
    """Answers all decisions of a new walk with a child's tokens.

    Raises:
        ValueError: the tokens are too few, too many or out of range for this space.
    """
    rest = tuple(tokens)
    while walk.decision is not None:
        size = walk.decision.num_tokens
        if len(rest) < size:
            raise ValueError(
                f"The tokens end before {walk.decision.name!r}: the space asks for more than the {len(tokens)} given. "
                "Was this child sampled from another search space?"
            )
        walk.answer(rest[:size])
        rest = rest[size:]
    if rest:
        raise ValueError(
            f"{len(rest)} of {len(tokens)} tokens are left over after the last decision. "
            "Was this child sampled from another search space?"
        )
    return walk


def possible_answers(decision: Decision) -> Iterator[tuple[int, ...]]:
    """Every answer that the decision's narrowing admits, in ascending order of tokens."""
    if isinstance(decision, Choice):
        yield from ((token,) for token in range(len(decision.options)) if decision.allows(token))
    else:
        yield from itertools.product(*((0, 1) if bit is None else (bit,) for bit in decision.forced))
