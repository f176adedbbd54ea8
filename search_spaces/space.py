"""A space as one search uses it: the generator function, the user's narrowing and a schedule."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.narrowing import Narrowing, Rule
from automl.search_spaces.numeric import Numeric
from automl.search_spaces.walk import Walk, possible_answers, replay

Schedule = Callable[[int], Mapping[str, Any]]
SCHEDULE_CHECKS = range(0, 50_000, 100)  # child numbers for which a schedule is checked before a search begins


@dataclasses.dataclass(frozen=True)
class Space:
    """The set of children that a search can sample.

    Attributes:
        function: a function without arguments. Its generator yields decisions and returns the spec.
        narrowing: the user's rules, which remove options.
        schedule: maps a child's number to the option values that are forced, by decision name; or None.
    """

    function: Callable[[], Generator[Decision, Any, Any]]
    narrowing: Narrowing = dataclasses.field(default_factory=Narrowing)
    schedule: Schedule | None = None

    def walk(self, number: int) -> Walk:
        """A new walk for the child of this number, with the narrowing and the schedule."""
        rules = self.narrowing.rules
        if self.schedule is not None:
            rules += tuple(Rule(name, (str(value),), fix=True) for name, value in self.schedule(number).items())
        return Walk(self.function(), Narrowing(rules) if rules else None)

    def begin(self) -> Walk:
        """A new walk without narrowing and schedule."""
        return Walk(self.function())

    def decode(self, tokens: tuple[int, ...] | list[int]) -> Walk:
        """The finished walk of a stored child. It ignores narrowing, which does not change the meaning of tokens."""
        return replay(self.begin(), tokens)

    def encode(self, values: Mapping[str, Any], *, more: bool = False) -> tuple[int, ...]:
        """The tokens of the child whose decisions have these values: an option, or for `Links` the layers' indices.

        Args:
            more: allow values that belong to no decision.

        Raises:
            ValueError: a decision has no value, or one that is not among its options. Without `more`: a value belongs
                to no decision.
        """
        walk = self.begin()
        while (decision := walk.decision) is not None:
            if decision.name not in values:
                raise ValueError(f"No value is given for the decision {decision.name!r}.")
            walk.answer(_tokens_of(decision, values[decision.name]))
        if not more and (unknown := [name for name in values if name not in walk.answers]):
            raise ValueError(f"This child has no decision {unknown[0]!r}.")
        return walk.tokens

    def admits(self, values: Mapping[str, Any]) -> bool:
        """Whether the space has the child whose decisions have these values, and the narrowing leaves it. Values that
        belong to no decision are ignored."""
        try:
            answers = self.decode(self.encode(values, more=True)).answers
        except ValueError:
            return False
        walk = Walk(self.function(), self.narrowing)
        while (decision := walk.decision) is not None:
            if not decision.admits(answers[decision.name]):
                return False
            walk.answer(answers[decision.name])
        return True

    def check(self) -> None:
        """Checks the space before a search is created.

        Raises:
            ValueError: the space breaks the rules of `Walk`, a narrowing rule fits no decision, or the schedule and a
                rule affect the same decision.
        """
        known = [decision for walk in self.survey() for decision in walk.decisions]
        self.narrowing.check(known)
        if self.schedule is not None:
            self._check_schedule(self.schedule, known)
        self.walk(0)

    def _check_schedule(self, schedule: Schedule, known: list[Decision]) -> None:
        forced = {(name, str(value)) for number in SCHEDULE_CHECKS for name, value in schedule(number).items()}
        for name, value in sorted(forced):
            if any(rule.matches(Choice(name, (None,))) for rule in self.narrowing.rules):
                raise ValueError(
                    f"{name!r} is set by the schedule, so it cannot also be narrowed; drop the rule or the schedule."
                )
            try:
                Narrowing((Rule(name, (value,), fix=True),)).check(known)
            except ValueError as error:
                raise ValueError(f"The schedule does not fit this space. {error}") from None

    def enumerate(self, number: int) -> Iterator[Walk]:
        """Every finished walk of the child of this number, in ascending order of tokens."""
        # A generator cannot be copied, so each branch starts again from the root. The stack holds iterators, because
        # one `Links` of 20 bits has a million answers.
        pending: list[Iterator[list[tuple[int, ...]]]] = [iter([[]])]
        while pending:
            prefix = next(pending[-1], None)
            if prefix is None:
                pending.pop()
                continue
            walk = self.walk(number)
            for answer in prefix:
                walk.answer(answer)
            if walk.decision is None:
                yield walk
            else:
                pending.append(_extended(prefix, walk.decision))

    def survey(self) -> list[Walk]:
        """Finished walks: one of first options, one of last options, and 64 of random options. Every call returns the
        same walks.

        Decisions can depend on earlier answers, so only walks show their names and kinds. These walks meet all but the
        rarest decisions.
        """
        generator = random.Random(0)
        pickers: list[Callable[[int], int]] = [lambda n: 0, lambda n: n - 1]
        pickers += [generator.randrange] * 64
        return [self._finish(self.begin(), pick) for pick in pickers]

    @staticmethod
    def _finish(walk: Walk, pick: Callable[[int], int]) -> Walk:
        while (decision := walk.decision) is not None:
            if isinstance(decision, Choice):
                walk.answer((pick(len(decision.options)),))
            else:
                walk.answer(tuple(pick(2) for _ in range(decision.count)))
        return walk


def _tokens_of(decision: Decision, value: Any) -> tuple[int, ...]:
    if isinstance(decision, Numeric):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{decision.name!r} cannot be {value!r}; it is a number.")
        return (decision.token_of(value),)
    if isinstance(decision, Choice):
        # Compares JSON texts, because JSON has no tuples and true is not 1 there; then texts as the user writes them.
        json_texts = [_as_json(option) for option in decision.options]
        if _as_json(value) in json_texts:
            return (json_texts.index(_as_json(value)),)
        texts = [str(option) for option in decision.options]
        if type(value) is not bool and str(value) in texts:
            return (texts.index(str(value)),)
        options = ", ".join(map(str, decision.options))
        raise ValueError(f"{decision.name!r} cannot be {value!r}; it is one of {options}.")
    if not isinstance(value, list | tuple) or not all(type(i) is int and 0 <= i < decision.count for i in value):
        before = (
            f"a list of layers before it, 0 to {decision.count - 1}" if decision.count else "[]: no layer is before it"
        )
        raise ValueError(f"{decision.name!r} cannot be {value!r}; it is {before}.")
    return tuple(int(index in value) for index in range(decision.count))


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _extended(prefix: list[tuple[int, ...]], decision: Decision) -> Iterator[list[tuple[int, ...]]]:
    return ([*prefix, answer] for answer in possible_answers(decision))
