"""What every space promises, over all that the program knows and all their presets."""

import functools
import json
import pkgutil

import pytest
from sampling import sample

from automl import search_spaces
from automl.search_spaces.decisions import Choice
from automl.search_spaces.narrowing import Narrowing, Rule
from automl.search_spaces.space import Space
from automl.search_spaces.walk import canonical_hash, canonical_json, spec_to_json

MEMBERS = [
    (name, preset) for name in search_spaces.SPACES for preset in pkgutil.resolve_name(search_spaces.PRESETS[name])
]
CHILDREN = range(20)


@pytest.fixture(params=MEMBERS, ids="-".join)
def function(request):
    name, preset = request.param
    # Through JSON, since settings come from a command line and are stored.
    settings = json.loads(json.dumps(pkgutil.resolve_name(search_spaces.PRESETS[name])[preset]))
    return functools.partial(pkgutil.resolve_name(search_spaces.SPACES[name]), **settings)


def test_every_space_has_presets():
    assert search_spaces.PRESETS.keys() == search_spaces.SPACES.keys()
    assert {name for name, _ in MEMBERS} == search_spaces.SPACES.keys()


def test_the_space_passes_its_own_check(function):
    Space(function).check()


def test_tokens_go_to_json_and_back_to_the_same_child(function):
    space = Space(function)
    for seed in CHILDREN:
        walk = sample(space, seed)
        again = space.decode(json.loads(json.dumps(walk.tokens)))
        assert again.tokens == walk.tokens
        assert again.spec == walk.spec
        assert again.decisions == walk.decisions
        assert canonical_hash(again.spec, again.tokens) == canonical_hash(walk.spec, walk.tokens)


def test_a_spec_is_plain_data_and_frozen(function):
    for seed in CHILDREN:
        spec = sample(Space(function), seed).spec
        before = canonical_json(spec_to_json(spec))
        if hasattr(spec, "canonical"):
            canonical_json(spec.canonical())
        assert canonical_json(spec_to_json(spec)) == before


def test_names_are_unique_within_a_child_and_say_the_kind_s_width(function):
    widths = {}
    for seed in CHILDREN:
        walk = sample(Space(function), seed)
        names = [decision.name for decision in walk.decisions]
        assert len(set(names)) == len(names)
        for decision in walk.decisions:
            if isinstance(decision, Choice):  # also across children, since a policy has one softmax per kind
                assert widths.setdefault(decision.kind, len(decision.options)) == len(decision.options)


def test_narrowing_masks_and_renumbers_nothing(function):
    space = Space(function)
    for seed in CHILDREN:
        # Leave each choice of one child the option it took, and the links it has: only that child is left.
        child = sample(space, seed)
        rules = []
        for decision in child.decisions:
            tokens = child.answers[decision.name]
            values = (decision.value(tokens),) if isinstance(decision, Choice) else decision.value(tokens) or ("none",)
            rules.append(Rule(decision.name, tuple(map(str, values)), fix=True))
        narrowed = Space(function, Narrowing(tuple(rules)))
        walk = sample(narrowed, seed + 1)
        assert walk.tokens == child.tokens
        assert walk.spec == child.spec
        assert None not in walk.forced
        for plain, masked in zip(child.decisions, walk.decisions, strict=True):
            assert (plain.name, plain.kind, plain.num_tokens) == (masked.name, masked.kind, masked.num_tokens)

        # Half of these rules leave a space in which every child is one of the whole space.
        some = Space(function, Narrowing(tuple(rules[::2])))
        walk = sample(some, seed + 2)
        assert space.decode(walk.tokens).spec == walk.spec
        for rule in rules[::2]:
            if rule.pattern in walk.answers:
                assert walk.answers[rule.pattern] == child.answers[rule.pattern]
