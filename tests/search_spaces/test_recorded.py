"""Tokens of a space that has changed are recognised by their decisions and their spec."""

import math

import numpy as np
import pytest

from automl.search_spaces.convnet.space import convnet
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.plain import plain
from automl.search_spaces.recorded import ChildMismatchError, decision_to_json, decode_recorded, difference_of
from automl.search_spaces.space import Space
from automl.search_spaces.spec import spec_to_json


def layers(first=(16, 32), name="units", kind="k", links=1, factor=1, more=False, second=True):
    units = yield Choice("first", first)
    yield Links("inputs0", 0, kind="inputs")
    if links:
        yield Links("inputs1", 1, kind="inputs")
    other = None
    if second:
        other = yield Choice(name, (0.5, (1, 2)), kind=kind)
    if more:
        yield Choice("more", (1, 2))
    return {"first": units * factor, "second": other}


def recorded(space, walk):
    decisions = [decision_to_json(decision) for decision in walk.decisions]
    return walk.tokens, spec_to_json(walk.spec), decisions


CHILD = recorded(Space(layers), Space(layers).decode((1, 1, 1)))


def test_an_unchanged_space_makes_the_recorded_child():
    assert decode_recorded(Space(layers), *CHILD).spec == {"first": 32, "second": (1, 2)}
    for walk in Space(convnet).survey()[:8]:
        tokens, spec, decisions = recorded(Space(convnet), walk)
        assert decode_recorded(Space(convnet), tokens, spec, decisions).spec == walk.spec
        assert decode_recorded(Space(convnet), tokens, spec, None).answers == walk.answers


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"first": (8, 16, 32)}, "the decision 'first' has the options [8, 16, 32] where it had [16, 32]"),
        ({"first": (16, 32, 64)}, "the decision 'first' has the options [16, 32, 64] where it had [16, 32]"),
        ({"first": (32, 16)}, "the decision 'first' has the options [32, 16] where it had [16, 32]"),
        ({"first": (16, 32.0)}, "the decision 'first' has the options [16, 32.0] where it had [16, 32]"),
        ({"name": "width"}, "there is the decision 'width' where 'units' was"),
        ({"kind": "q"}, "the decision 'units' is of the kind 'q' where it was of 'k'"),
        ({"links": 0}, "there is the decision 'units' where 'inputs1' was"),
        ({"more": True}, "the decision 'more' is new"),
        ({"second": False}, "the decision 'units' is no longer there"),
        ({"factor": 2}, "'first' in the spec is 64 where 32 is recorded"),
    ],
)
def test_a_changed_space_is_noticed(changes, sentence):
    with pytest.raises(ChildMismatchError) as caught:
        decode_recorded(Space(lambda: layers(**changes)), *CHILD)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"first": (8, 16, 32)}, "'first' in the spec is 16 where 32 is recorded"),
        ({"first": (16,)}, "Token 1 is out of range for 'first'"),
        ({"more": True}, "the decision 'more' has no answer among its tokens"),
        ({"second": False}, "1 of its 3 tokens are left over after the last decision"),
    ],
)
def test_without_recorded_decisions_the_spec_is_compared(changes, sentence):
    tokens, spec, _ = CHILD
    with pytest.raises(ChildMismatchError, match=sentence.replace("(", r"\(")):
        decode_recorded(Space(lambda: layers(**changes)), tokens, spec, None)
    assert decode_recorded(Space(lambda: layers(first=(16, 32, 64))), tokens, spec, None).spec["first"] == 32


@pytest.mark.parametrize(
    "was, now, found",
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, None),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("'a[1]' in the spec", "2", "3")),
        ({"a": {"b": 1}}, {"a": {}}, ("'a.b' in the spec", "1", "absent")),
        ({}, {"b": None}, ("'b' in the spec", "absent", "null")),
        ([1], [1, 2], ("the spec", "[1]", "[1, 2]")),
        (1, 1.0, ("the spec", "1", "1.0")),
        (1, True, ("the spec", "1", "true")),
        ({"a": "x" * 200}, {"a": 0}, ("'a' in the spec", '"' + "x" * 78 + "…", "0")),
    ],
)
def test_where_two_specs_differ(was, now, found):
    assert difference_of(was, now) == found


@pytest.mark.parametrize(
    "value, expected",
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.25), 0.25),
        (np.bool_(True), True),
        (np.str_("relu"), "relu"),
        (np.array(7), 7),
        ((np.int8(1), [np.float64(2.0), {np.str_("a"): np.uint8(4)}]), (1, [2.0, {"a": 4}])),
        ("text", "text"),
        (None, None),
    ],
)
def test_plain_values(value, expected):
    found = plain(value)
    assert found == expected and type(found) is type(expected)
    assert spec_to_json({"value": value}) == spec_to_json({"value": expected})


def test_a_value_that_is_not_a_number_is_unchanged():
    array = np.ones(3)
    assert plain(array) is array
    assert math.isnan(plain(np.float64("nan")))


def test_the_kind_of_a_choice_is_named_after_its_options_as_given():
    """A stored state of the controller knows the kinds by these names."""
    assert Choice("rate", np.array([0.5, 1.0])).kind == f"rate[{np.float64(0.5)!r}, {np.float64(1.0)!r}]"
    assert Choice("rate", (0.5, 1.0)).kind == "rate[0.5, 1.0]"


def test_a_set_of_numbers_has_one_order():
    assert sorted(Choice("n", {3, 1, 2}).options) == [1, 2, 3]
    with pytest.raises(ValueError, match="The options of 'n' are a set, which has another order in every process"):
        Choice("n", frozenset({"a", "b"}))
