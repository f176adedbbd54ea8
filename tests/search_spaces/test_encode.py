"""From decisions' values to tokens: how the user names a child."""

import functools
import json

import pytest

from automl.search_spaces.convnet.space import PRESETS, convnet
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.narrowing import Narrowing, parse_rule
from automl.search_spaces.space import Space
from automl.search_spaces.spec import spec_to_json

CONVNETS = {
    **PRESETS,
    "strides": PRESETS["small"] | {"strides": True},
    "no skips": PRESETS["small"] | {"skips": False},
    "strides and no skips": PRESETS["paper"] | {"strides": True, "skips": False},
    "hardly a choice": {"depths": (2,), "filter_heights": (3,), "filter_widths": (5, 3), "num_filters": (8,)},
}


def own():
    """Later decisions depend on earlier answers."""
    kind = yield Choice("kind", ("tree", "graph"))
    if kind == "tree":
        return [kind, (yield Choice("leaves", (2, 4))), (yield Choice("rate", (0.1, 0.01)))]
    nodes = []
    for index in range(int((yield Choice("nodes", ("2", "3"))))):
        nodes.append((yield Links(f"node{index}", count=index, kind="node")))
    return [kind, nodes]


@pytest.fixture(params=CONVNETS)
def convnets(request):
    return Space(functools.partial(convnet, **CONVNETS[request.param]))


def values_of(walk):
    return {decision.name: decision.value(walk.answers[decision.name]) for decision in walk.decisions}


def through_json(value):
    return json.loads(json.dumps(value))


def test_the_values_of_a_convnet_s_decisions_give_its_tokens(convnets):
    for walk in convnets.survey():
        assert convnets.encode(values_of(walk)) == walk.tokens
        assert convnets.encode(through_json(values_of(walk))) == walk.tokens


def test_the_spec_of_a_convnet_gives_its_tokens(convnets):
    for walk in convnets.survey():
        values = ConvNet.decisions(spec_to_json(walk.spec))
        assert convnets.encode(values, more=True) == walk.tokens
        assert {name: values[name] for name in walk.answers} == through_json(values_of(walk))


def test_every_child_of_a_conditional_space_comes_back_from_its_values():
    space = Space(own)
    walks = list(space.enumerate(0))
    assert len(walks) == 2 * 2 + 2 + 8
    for walk in walks:
        assert space.encode(values_of(walk)) == space.encode(through_json(values_of(walk))) == walk.tokens


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ({"kind": "graph", "nodes": 2, "node0": [], "node1": [0]}, (1, 0, 1)),  # a number for a text
        ({"kind": "tree", "leaves": "4", "rate": "0.01"}, (0, 1, 1)),  # a text for a number
        ({"node2": (1, 0), "node1": (), "node0": (), "nodes": "3", "kind": "graph"}, (1, 1, 0, 1, 1)),
    ],
)
def test_values_as_a_user_writes_them(values, tokens):
    assert Space(own).encode(values) == tokens


def test_a_value_itself_comes_before_its_text():
    def space():
        return (yield Choice("size", ("3", 3, True)))

    assert [Space(space).encode({"size": value}) for value in ("3", 3, "True")] == [(0,), (1,), (2,)]


def test_encoding_ignores_the_order_of_values_and_the_narrowing():
    values = {"kind": "tree", "leaves": 4, "rate": 0.01}
    rules = Narrowing((parse_rule("leaves=2", fix=True),))
    assert Space(own, rules).encode(dict(reversed(values.items()))) == Space(own).encode(values) == (0, 1, 1)


def test_an_option_without_a_json_type_is_given_in_its_json_form():
    def space():
        return (yield Choice("shape", ((1, 2), (3, (4, 5)), None)))

    for token, option in enumerate(((1, 2), (3, (4, 5)), None)):
        assert (
            Space(space).encode({"shape": option}) == Space(space).encode({"shape": through_json(option)}) == (token,)
        )


TREE = {"kind": "tree", "leaves": 2, "rate": 0.1}
GRAPH = {"kind": "graph", "nodes": "3", "node0": [], "node1": [], "node2": []}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "No value is given for the decision 'kind'."),
        (GRAPH | {"kind": "tree"}, "No value is given for the decision 'leaves'."),
        (TREE | {"leaves": 3}, "'leaves' cannot be 3; it is one of 2, 4."),
        (TREE | {"leaves": None}, "'leaves' cannot be None; it is one of 2, 4."),
        (TREE | {"kind": ["tree"]}, "'kind' cannot be ['tree']; it is one of tree, graph."),
        (GRAPH | {"node2": [2]}, "'node2' cannot be [2]; it is a list of layers before it, 0 to 1."),
        (GRAPH | {"node2": [-1]}, "'node2' cannot be [-1]; it is a list of layers before it, 0 to 1."),
        (GRAPH | {"node2": [True]}, "'node2' cannot be [True]; it is a list of layers before it, 0 to 1."),
        (GRAPH | {"node2": "01"}, "'node2' cannot be '01'; it is a list of layers before it, 0 to 1."),
        (GRAPH | {"node2": 1}, "'node2' cannot be 1; it is a list of layers before it, 0 to 1."),
        (TREE | {"nodes": "2"}, "This child has no decision 'nodes'."),
        (GRAPH | {"nodes": "2"}, "This child has no decision 'node2'."),
    ],
)
def test_a_message_names_the_value_that_makes_no_child(values, message):
    with pytest.raises(ValueError) as caught:
        Space(own).encode(values)
    assert str(caught.value) == message


def test_extra_values_are_allowed_with_more():
    assert Space(own).encode(TREE | {"nodes": "2", "comment": None}, more=True) == (0, 0, 0)
    with pytest.raises(ValueError, match="No value is given for the decision 'rate'"):
        Space(own).encode({"kind": "tree", "leaves": 2, "comment": None}, more=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_filters": 9}, "'layer1/num_filters' cannot be 9; it is one of 8, 12, 16, 24."),
        ({"inputs": [1]}, "'layer1/inputs' cannot be [1]; it is a list of layers before it, 0 to 0."),
        ({"stride_width": 4}, "'layer1/stride_width' cannot be 4; it is one of 1, 2, 3."),
    ],
)
def test_a_message_names_the_first_difference_of_a_spec_of_another_space(change, message):
    space = Space(functools.partial(convnet, **CONVNETS["strides"]))
    spec = spec_to_json(space.survey()[0].spec)
    spec["layers"][1] |= change
    with pytest.raises(ValueError) as caught:
        space.encode(ConvNet.decisions(spec), more=True)
    assert str(caught.value) == message


def test_pooling_is_no_decision():
    """The space pools after fixed layers. A reader of a spec compares it with the child that its tokens make."""
    values = ConvNet.decisions(spec_to_json(Space(functools.partial(convnet, **CONVNETS["strides"])).survey()[0].spec))
    assert not any(name.endswith("pool") for name in values)
