"""The joint space: a network, its rule and its rate."""

import keras
import numpy as np
import pytest

from automl.search_spaces.joint.space import PRESETS, joint
from automl.search_spaces.joint.spec import TrainedCell, TrainedNet
from automl.search_spaces.recurrent_cell.layer import TreeCell
from automl.search_spaces.recurrent_cell.space import recurrent_cell
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_hash, spec_to_json
from automl.search_spaces.update_rule.spec import UpdateRule
from automl.testing.spaces import sample

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def small():
    return joint(**PRESETS["small"])


def test_a_child_is_a_network_a_rule_and_a_rate():
    walk = sample(Space(small), 3)
    assert isinstance(walk.spec, TrainedNet) and walk.spec.learning_rate in (1e-3, 1e-2, 1e-1, 1.0)
    values = TrainedNet.decisions(spec_to_json(walk.spec))
    assert Space(small).encode(values, more=True) == walk.tokens


def cells():
    return joint(**PRESETS["cells"])


def test_a_child_can_be_a_cell_a_rule_and_a_rate():
    walk = sample(Space(cells), 3)
    spec = walk.spec
    assert isinstance(spec, TrainedCell) and spec.learning_rate in (1e-3, 1e-2, 1e-1, 1.0)
    assert Space(cells).encode(TrainedCell.decisions(spec_to_json(spec)), more=True) == walk.tokens
    assert (spec.num_products, spec.biased) == (8, False)
    x, h, c = np.random.default_rng(0).normal(size=(3, 2, 24)).astype(np.float32)
    found, alone = spec.step(x, h, c[:, :3]), spec.tree.step(x, h, c[:, :3])
    np.testing.assert_array_equal(np.asarray(found), np.asarray(alone))


def test_equal_cells_with_equal_rules_are_one_child():
    cell = sample(Space(recurrent_cell), 3).spec
    ways = [TrainedCell(cell, UpdateRule.parse(text), 0.1) for text in ("g + m", "m + g", "g - m")]
    one, same, other = (canonical_hash(way, ()) for way in ways)
    assert one == same != other


def test_equal_networks_with_equal_rules_are_one_child():
    spec = sample(Space(small), 3).spec
    ways = [TrainedNet(spec.net, UpdateRule.parse(text), 0.1) for text in ("g + m", "m + g", "g - m")]
    one, same, other = (canonical_hash(way, ()) for way in ways)
    assert one == same != other
    assert canonical_hash(TrainedNet(spec.net, UpdateRule.parse("g + m"), 0.01), ()) != one


def test_its_options_are_those_of_both_spaces():
    specs = [sample(Space(lambda: joint(depths=(2,), groups=(3,), rates=(0.5,))), seed).spec for seed in range(3)]
    assert all((len(s.net.layers), len(s.rule.groups), s.learning_rate) == (2, 3, 0.5) for s in specs)
    with pytest.raises(ValueError, match="rates is \\[0\\]"):
        next(joint(rates=[0]))
    with pytest.raises(ValueError, match="network is 'rnn'; it is one of convnet, recurrent-cell"):
        next(joint(network="rnn"))
    with pytest.raises(
        ValueError, match=r"space\.depths is not an option of recurrent-cell, which has base, combinations"
    ):
        next(joint(network="recurrent-cell", depths=(2,)))


def test_the_exported_file_has_the_network_and_its_optimizer():
    spec = TrainedNet(sample(Space(small), 3).spec.net, UpdateRule.parse("exp(sign(g) * sign(m)) * g"), 0.01)
    found = {}
    exec(compile(spec.source((8, 8, 1), 10), "found.py", "exec"), found)
    model = found["build"]()
    model.compile(found["FoundRule"](), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(0.01)
    model.fit(np.ones((4, 8, 8, 1)), np.arange(4), verbose=0)


def test_the_classes_of_a_cell_and_its_rule(monkeypatch):
    # The exported class replaces this one in Keras's registry; the end of the test restores it for other tests.
    monkeypatch.setitem(keras.saving.get_custom_objects(), "automl>TreeCell", TreeCell)
    spec = TrainedCell(sample(Space(recurrent_cell), 3).spec, UpdateRule.parse("drop(g, 0.5)"), 0.01)
    found = {}
    exec(compile("import math\nimport keras\nfrom keras import ops\n" + spec.source(), "found.py", "exec"), found)
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.RNN(found["TreeCell"](4)), keras.layers.Dense(1)])
    model.compile(found["FoundRule"](), "mse")
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(0.01)
    model.fit(np.ones((4, 3, 2)), np.ones((4, 1)), verbose=0)
