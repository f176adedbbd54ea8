"""The contract of every spec, over all spaces; and how a user's incomplete spec is completed."""

import dataclasses
import functools
import json
import pkgutil

import pytest

from automl import search_spaces
from automl.search_spaces.space import Space
from automl.search_spaces.spec import (
    AnySpec,
    BringsOptimizer,
    Buildable,
    Cell,
    Countable,
    Encodable,
    HasGraph,
    HasOptimizerSource,
    HasSource,
    KerasCell,
    Parsable,
    Spec,
    Trainable,
    Versioned,
    as_spec,
    canonical_hash,
    canonical_json,
    spec_to_json,
)
from automl.search_spaces.views import read_spec, spec_drawing, spec_line
from automl.testing.spaces import sample

MEMBERS = [
    (name, preset) for name in search_spaces.SPACES for preset in pkgutil.resolve_name(search_spaces.PRESETS[name])
]
IMAGES = {Buildable, Countable, Trainable, HasSource}
CELLS = {Cell, KerasCell, HasSource}
CAPABILITIES = {  # of what each space makes, beside those of all
    ("convnet", None): IMAGES | {HasGraph},
    ("recurrent-cell", None): CELLS | {HasGraph, Versioned},
    ("update-rule", None): {HasGraph, BringsOptimizer, HasOptimizerSource, HasSource, Parsable, Versioned},
    ("joint", None): IMAGES | {BringsOptimizer, HasGraph, Versioned},
    ("joint", "cells"): CELLS | {BringsOptimizer, HasGraph, Versioned},
    ("table-row", None): set(),
    ("landscape", None): set(),
}
OF_DATA = {
    "table-row": {"columns": [["width", [1, 2]], ["rate", [0.1, 0.5]], ["act", ["relu", "tanh"]]], "ordered": ["rate"]}
}
OF_ALL = {Encodable}


@pytest.fixture(params=MEMBERS, ids="-".join)
def member(request):
    """The name of a space, a preset and children of it."""
    name, preset = request.param
    function = pkgutil.resolve_name(search_spaces.SPACES[name])
    of_preset = pkgutil.resolve_name(search_spaces.PRESETS[name])[preset]
    space = Space(functools.partial(function, **of_preset | OF_DATA.get(name, {})))
    return name, preset, [sample(space, seed).spec for seed in range(10)]


def test_every_space_has_a_reader():
    assert search_spaces.READERS.keys() == search_spaces.SPACES.keys()
    assert search_spaces.DEFAULT_SPACE in search_spaces.SPACES


def test_every_spec_is_whole(member):
    _, _, specs = member
    for spec in specs:
        assert isinstance(spec, Spec)
        assert as_spec(spec) is spec
        canonical_json(spec.canonical())
        assert spec.line() and spec.line().isprintable()
        assert isinstance(spec.drawing(), str)
        assert spec.to_json() == dataclasses.asdict(spec)


def test_every_spec_comes_back_from_json(member):
    name, _, specs = member
    for spec in specs:
        stored = json.loads(json.dumps(spec_to_json(spec)))
        assert read_spec(stored, name) == spec
        assert canonical_hash(read_spec(stored, name), ()) == canonical_hash(spec, ())
        assert spec_line(stored, name) == spec.line()
        assert spec_drawing(stored, name) == spec.drawing().splitlines()


def test_what_the_specs_of_each_space_can_do(member):
    name, preset, specs = member
    declared = CAPABILITIES.get((name, preset), CAPABILITIES[name, None]) | OF_ALL
    known = set().union(*CAPABILITIES.values(), OF_ALL)
    for spec in specs:
        assert {capability for capability in known if isinstance(spec, capability)} == declared


@dataclasses.dataclass(frozen=True)
class Plain:
    sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Shown(Plain):
    def line(self):
        return "-".join(map(str, self.sizes)) + "\n\x1b[2J"

    def drawing(self):
        return "top\n\x1b[2J"

    def canonical(self):
        return sorted(self.sizes)


def test_a_dataclass_of_a_user_is_completed():
    spec = as_spec(Plain((2, 1)), (1, 0))
    assert isinstance(spec, Spec) and isinstance(spec, AnySpec)
    assert spec.to_json() == {"sizes": [2, 1]}
    assert spec.line() == '{"sizes": [2, 1]}'
    assert spec.canonical() == [1, 0]
    assert spec.drawing() == ""


def test_methods_of_a_user_are_used_and_cannot_steer_the_terminal():
    spec = as_spec(Shown((2, 1)), (1, 0))
    assert spec.to_json() == {"sizes": [2, 1]}
    assert spec.line() == "2-1 \\u001b[2J"
    assert spec.drawing() == "top\n\\u001b[2J"
    assert spec.canonical() == [1, 2]
    assert canonical_hash(Shown((2, 1)), (1, 0)) == canonical_hash(Shown((1, 2)), (0, 1))


@pytest.mark.parametrize("value", [None, 3, "relu", [1, {"a": 2}], {"layers": 3}])
def test_a_json_value_is_completed(value):
    spec = as_spec(value, (1, 2))
    assert (spec.to_json(), spec.line(), spec.canonical()) == (value, json.dumps(value), [1, 2])


def test_a_whole_spec_says_its_own_json():
    class Whole:
        def canonical(self):
            return 1

        def line(self):
            return "whole"

        def drawing(self):
            return ""

        def to_json(self):
            return {"whole": (1, 2)}

    assert spec_to_json(Whole()) == {"whole": [1, 2]}
    with pytest.raises(ValueError, match="The space returned a object that is neither"):
        spec_to_json(object())
