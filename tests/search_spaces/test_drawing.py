"""Graphs for Graphviz: what is in them, and that no user's text can end its label early."""

import re
import shutil
import subprocess

import pytest

from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.drawing import layers_dot, quoted
from automl.search_spaces.joint.spec import TrainedCell, TrainedNet
from automl.search_spaces.recurrent_cell.named import NASCELL
from automl.search_spaces.update_rule.spec import UpdateRule

NET = ConvNet(
    (
        ConvLayer(5, 5, 24, (), pool=True),
        ConvLayer(3, 5, 16, (), stride_height=2),
        ConvLayer(3, 3, 8, (0, 1)),
        ConvLayer(1, 3, 8, (1,)),
    )
)
RULE = UpdateRule.parse("exp(sign(g) * m) / g - drop(momentum, 0.3)")
USERS = [{"units": 32, "inputs": []}, {"units": 16, "inputs": [0]}, {"units": 64, "inputs": [0, 1]}]


def edges(text):
    return set(re.findall(r'"([^"]*)" -> "([^"]*)"', text))


def labels(text):
    return dict(re.findall(r'"([^"]*)" \[label="((?:[^"\\]|\\.)*)"', text))


def test_a_convolutional_network_with_its_poolings_and_skips():
    text = NET.dot()
    assert edges(text) == {
        ("image", "layer0"),
        ("layer0", "pool0"),
        ("image", "layer1"),
        ("pool0", "layer2"),
        ("layer1", "layer2"),
        ("layer1", "layer3"),
        ("layer2", "average"),
        ("layer3", "average"),
        ("average", "logits"),
    }
    found = labels(text)
    assert found["layer0"] == "0: convolution 5 x 5, 24 filters" and found["pool0"] == "max pooling 2 x 2"
    assert found["layer1"] == r"1: convolution 3 x 5, 16 filters\nstride 2 x 1"
    assert found["layer2"] == r"2: convolution 3 x 3, 8 filters\nconcatenates 0, 1"


def test_an_update_rule_as_a_tree_of_names():
    text = RULE.dot()
    assert sorted(labels(text).values()) == sorted(
        [r"subtract\nleft - right", r"divide\nleft / right", "drop 0.3", "exp", "multiply", "sign"]
        + ["g", "g", "m", "momentum", "update U:  w' = w - rate * U"]
    )
    assert len(edges(text)) == 10  # a tree of ten nodes, and the step


@pytest.mark.parametrize("spec", [TrainedNet(NET, RULE, 0.1), TrainedCell(NASCELL, RULE, 0.1)])
def test_a_joint_child_is_drawn_with_its_rule(spec):
    text = spec.dot()
    assert text.count("subgraph") == 2 and "trained with, at the rate 0.1" in text
    assert ("average", "logits") in edges(text) or ("node14", "next h") in edges(text)
    assert ("rule0", "update") in edges(text)


@pytest.mark.parametrize("spec", [USERS, {"layers": USERS, "rate": 0.1}])
def test_a_user_s_layers_that_number_their_inputs(spec):
    text = layers_dot(spec)
    assert edges(text) == {
        ("from input", "layer 0"),
        ("layer 0", "layer 1"),
        ("layer 0", "layer 2"),
        ("layer 1", "layer 2"),
        ("layer 2", "result"),
    }
    assert labels(text)["layer 1"] == r"1\nunits: 16"


@pytest.mark.parametrize(
    "spec",
    [
        {"stem": {"inputs": "image"}, "left": {"inputs": ["stem"]}, "right": {"inputs": ["stem", "image"]}},
        [
            {"name": "stem", "inputs": "image"},
            {"name": "left", "inputs": ["stem"]},
            {"name": "right", "inputs": ["stem", "image"]},
        ],
    ],
)
def test_a_user_s_layers_that_name_their_inputs(spec):
    assert edges(layers_dot(spec)) == {
        ("from image", "layer stem"),
        ("layer stem", "layer left"),
        ("layer stem", "layer right"),
        ("from image", "layer right"),
        ("layer left", "result"),
        ("layer right", "result"),
    }


@pytest.mark.parametrize(
    "spec",
    [3, [], {}, "layers", [1, 2], [{"units": 3}], {"layers": 3}, [{"inputs": [7]}], [{"inputs": [True]}, {}],
     [{"inputs": [{}]}], {"layers": [{"inputs": [0.5]}]}],
)  # fmt: skip
def test_a_spec_without_layers_is_not_drawn(spec):
    assert layers_dot(spec) is None


NASTY = ['"; evil [label="x', "back\\slash\\", "<b>&amp;</b>", "two\nlines", "\x1b[31mred", "ünïcødé 层", '\\"', "{|}"]


def test_a_text_stays_in_its_label():
    assert quoted('a"b\\', "c\n") == '"a\\"b\\\\\\nc\N{REPLACEMENT CHARACTER}"'


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_draws_them_all():
    texts = {text: {"inputs": [], text: text} for text in NASTY}
    for drawn in (NET.dot(), RULE.dot(), TrainedNet(NET, RULE, 0.1).dot(), TrainedCell(NASCELL, RULE, 0.1).dot()):
        assert "<svg" in svg_of(drawn)
    drawn = svg_of(layers_dot(texts))
    assert drawn.count('class="node"') == len(NASTY) + 2  # input and output
    assert "\x1b" not in drawn and "ünïcødé 层" in drawn and "&lt;b&gt;&amp;amp;&lt;/b&gt;" in drawn


def svg_of(text):
    done = subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == ""
    return done.stdout
