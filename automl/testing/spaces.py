"""The contract of spaces: a suite that pytest runs over a space."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from typing import Any

from automl.search_spaces.decisions import Choice, Decision
from automl.search_spaces.narrowing import Narrowing, Rule
from automl.search_spaces.recorded import check_options, check_same_survey, decision_to_json, surveyed
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_hash, canonical_json, spec_to_json
from automl.search_spaces.transfer import recorded_answers, transferred
from automl.search_spaces.walk import Walk, possible_answers

CHILDREN = range(20)


def sample(space: Space, seed: int, number: int = 0) -> Walk:
    """A finished random walk of the child with this number. Each free link is drawn with probability 1/2."""
    generator = random.Random(seed)
    walk = space.walk(number)
    while (decision := walk.decision) is not None:
        if isinstance(decision, Choice):
            walk.answer(generator.choice(list(possible_answers(decision))))
        else:
            walk.answer(tuple(generator.randrange(2) if bit is None else bit for bit in decision.forced))
    return walk


class SpaceContract:
    """Tests of a space.

    Subclass it in a pytest file, under a name that begins with `Test`, and override `make`, which may for example
    return `functools.partial(cells, depth=3)`.
    """

    def make(self) -> Callable[[], Generator[Decision, Any, Any]]:
        """The space's function, which takes no arguments."""
        raise NotImplementedError("Override make(), which returns the space's function.")

    def test_the_space_passes_its_own_check(self) -> None:
        space = Space(self.make())
        space.check()
        check_options([decision for walk in space.survey() for decision in walk.decisions])

    def test_the_space_is_the_same_every_time(self) -> None:
        check_same_survey(surveyed(Space(self.make())), surveyed(Space(self.make())))

    def test_tokens_go_to_json_and_back_to_the_same_child(self) -> None:
        space = Space(self.make())
        for seed in CHILDREN:
            walk = sample(space, seed)
            again = space.decode(json.loads(json.dumps(walk.tokens)))
            assert again.tokens == walk.tokens
            assert again.spec == walk.spec
            assert again.decisions == walk.decisions
            assert canonical_hash(again.spec, again.tokens) == canonical_hash(walk.spec, walk.tokens)

    def test_a_recorded_child_is_found_by_its_answers(self) -> None:
        space = Space(self.make())
        for seed in CHILDREN:
            walk = sample(space, seed)
            recorded = json.loads(json.dumps([decision_to_json(decision) for decision in walk.decisions]))
            assert transferred(space, recorded_answers(recorded, walk.tokens)).tokens == walk.tokens

    def test_a_spec_is_plain_data_that_its_hash_does_not_change(self) -> None:
        for seed in CHILDREN:
            walk = sample(Space(self.make()), seed)
            before = canonical_json(spec_to_json(walk.spec))
            canonical_hash(walk.spec, walk.tokens)
            assert canonical_json(spec_to_json(walk.spec)) == before

    def test_names_are_unique_and_a_kind_has_one_number_of_options(self) -> None:
        widths: dict[str, int] = {}
        for seed in CHILDREN:
            walk = sample(Space(self.make()), seed)
            names = [decision.name for decision in walk.decisions]
            assert len(set(names)) == len(names)
            for decision in walk.decisions:
                if isinstance(decision, Choice):  # also across children, since a policy has one softmax per kind
                    width = widths.setdefault(decision.kind, len(decision.options))
                    assert width == len(decision.options), f"{decision.kind!r} has {width} and {decision.options}"

    def test_narrowing_masks_and_renumbers_nothing(self) -> None:
        function = self.make()
        space = Space(function)
        for seed in CHILDREN:
            # Fix each choice to the option of one child, and each link to its links: only that child is left.
            child = sample(space, seed)
            rules = [_rule(decision, child.answers[decision.name]) for decision in child.decisions]
            walk = sample(Space(function, Narrowing(tuple(rules))), seed + 1)
            assert walk.tokens == child.tokens
            assert walk.spec == child.spec
            assert None not in walk.forced
            for plain, masked in zip(child.decisions, walk.decisions, strict=True):
                assert (plain.name, plain.kind, plain.num_tokens) == (masked.name, masked.kind, masked.num_tokens)

            # With half of these rules, every child of the narrowed space is a child of the whole space.
            some = Space(function, Narrowing(tuple(rules[::2])))
            walk = sample(some, seed + 2)
            assert space.decode(walk.tokens).spec == walk.spec
            for rule in rules[::2]:
                if rule.pattern in walk.answers:
                    assert walk.answers[rule.pattern] == child.answers[rule.pattern]


def _rule(decision: Decision, tokens: tuple[int, ...]) -> Rule:
    """The rule that fixes a decision to this answer."""
    values = (decision.value(tokens),) if isinstance(decision, Choice) else decision.value(tokens) or ("none",)
    return Rule(decision.name, tuple(map(str, values)), fix=True)
