import json
import pathlib
import subprocess
import sys

import pytest

from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.space import PRESETS, SCHEDULES, convnet, depth_schedule
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.decisions import Choice, Links
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk, replay

ROOT = pathlib.Path(__file__).parents[2]


def test_decisions_come_in_the_order_of_the_paper():
    walk = replay(Walk(convnet(depths=(2, 3), strides=True)), [0, 0, 1, 0, 1, 2, 3, 2, 0, 2, 1, 1])
    assert [(decision.name, decision.kind) for decision in walk.decisions] == [
        ("depth", "depth"),
        ("layer0/filter_height", "filter_height"),
        ("layer0/filter_width", "filter_width"),
        ("layer0/stride_height", "stride_height"),
        ("layer0/stride_width", "stride_width"),
        ("layer0/num_filters", "num_filters"),
        ("layer0/inputs", "inputs"),
        ("layer1/filter_height", "filter_height"),
        ("layer1/filter_width", "filter_width"),
        ("layer1/stride_height", "stride_height"),
        ("layer1/stride_width", "stride_width"),
        ("layer1/num_filters", "num_filters"),
        ("layer1/inputs", "inputs"),
    ]


def test_a_child_decoded_by_hand():
    tokens = [0, *(0, 1, 0, 1, 2), *(3, 2, 0, 2, 1, 1)]  # depth 2; layer 0; layer 1 with its one bit
    assert replay(Walk(convnet(depths=(2, 3), strides=True, pooling=(1, 5))), tokens).spec == ConvNet(
        (
            ConvLayer(1, 3, 48, (), stride_height=1, stride_width=2),
            ConvLayer(7, 5, 36, (0,), stride_height=1, stride_width=3, pool=True),
        )
    )


def test_without_skips_each_layer_reads_the_one_before():
    walk = replay(Walk(convnet(depths=(3,), skips=False)), [0] * 10)
    assert [layer.inputs for layer in walk.spec.layers] == [(), (0,), (1,)]
    assert not any(isinstance(decision, Links) for decision in walk.decisions)


def test_the_paper_s_values_are_the_defaults_and_the_paper_preset():
    for arguments in ({}, PRESETS["paper"]):
        walk = Walk(convnet(**arguments))
        assert walk.decision == Choice("depth", (6, 8, 10, 12, 14, 16, 18, 20), kind="depth")
        replay(walk, [0] * (1 + 6 * 3 + 15))
        options = {decision.kind: decision.options for decision in walk.decisions if isinstance(decision, Choice)}
        assert options["filter_height"] == options["filter_width"] == (1, 3, 5, 7)
        assert options["num_filters"] == (24, 36, 48, 64)


def test_the_small_preset_is_the_default_and_pools_after_layers_1_and_3():
    assert next(iter(PRESETS)) == "small"
    layers = replay(Walk(convnet(**PRESETS["small"])), [1] + [0] * (4 * 3 + 6)).spec.layers
    assert [layer.pool for layer in layers] == [False, True, False, True]


def test_arguments_may_come_from_json():
    settings = json.loads('{"depths": [3], "filter_heights": [1, 3], "pooling": [0], "strides": false}')
    walk = Walk(convnet(**settings))
    assert walk.decision.options == (3,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": ()}, "depths is (); it must be a list of at least one whole number, each 1 or more."),
        ({"depths": 6}, "depths is 6; it must be a list of at least one whole number, each 1 or more."),
        (
            {"num_filters": [8, 0]},
            "num_filters is [8, 0]; it must be a list of at least one whole number, each 1 or more.",
        ),
        (
            {"filter_widths": [3, "5"]},
            "filter_widths is [3, '5']; it must be a list of at least one whole number, each 1 or more.",
        ),
        (
            {"filter_heights": [True]},
            "filter_heights is [True]; it must be a list of at least one whole number, each 1 or more.",
        ),
        ({"pooling": (1, -1)}, "pooling is (1, -1); it must be a list of layer indices, each a whole number from 0."),
        ({"strides": "false"}, "strides is 'false'; it must be true or false."),
        ({"skips": 1}, "skips is 1; it must be true or false."),
    ],
)
def test_a_wrong_argument_is_refused_at_the_first_step(arguments, message):
    with pytest.raises(ValueError) as error:
        next(convnet(**arguments))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("number", "depth"),
    [(0, 6), (1599, 6), (1600, 8), (3199, 8), (11199, 18), (11200, 20), (12799, 20), (12800, 20), (10**6, 20)],
)
def test_the_depth_grows_by_two_every_1600_children(number, depth):
    assert depth_schedule(number) == depth
    assert SCHEDULES["depth"](number) == {"depth": depth}


def test_the_schedule_forces_the_depth_and_nothing_else():
    space = Space(lambda: convnet(**PRESETS["paper"]), schedule=SCHEDULES["depth"])
    space.check()
    walk = space.walk(1600)
    assert walk.decision.forced == (1,)
    walk.answer((1,))
    assert walk.decision.forced == (None,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNet(()), "A convolutional network needs at least one layer, got none."),
        (
            lambda: ConvNet((ConvLayer(1, 1, 8, (0,)),)),
            "Layer 0 reads the layers (0,); inputs are indices of earlier layers (from 0), ascending and each once.",
        ),
        (
            lambda: ConvNet((ConvLayer(1, 1, 8, ()), ConvLayer(1, 1, 8, ()), ConvLayer(1, 1, 8, (1, 0)))),
            "Layer 2 reads the layers (1, 0); inputs are indices of earlier layers (from 0), ascending and each once.",
        ),
        (lambda: ConvLayer(3, 0, 8, ()), "filter_width of a convolutional layer is 0; it must be 1 or more."),
    ],
)
def test_a_wrong_network_is_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message


def test_dangling_layers_are_those_that_none_reads():
    net = ConvNet(tuple(ConvLayer(1, 1, 8, inputs) for inputs in [(), (), (0,), ()]))
    assert net.dangling == (1, 2, 3)


def test_sampling_canonical_form_cost_and_source_import_no_keras():
    code = (
        "import sys\n"
        "from automl.search_spaces.convnet.space import convnet\n"
        "from automl.search_spaces.walk import Walk, replay\n"
        "net = replay(Walk(convnet(depths=(2,))), [0] * 8).spec\n"
        "net.canonical(), net.count((8, 8, 3), 10), net.source((8, 8, 3), 10)\n"
        "print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
