"""The space of recurrent cells: what a tree computes, which trees are equal, and how they are shown."""

import dataclasses
import functools
import json
import math
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.search_spaces.recurrent_cell.layer import TreeCell
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.recurrent_cell.named import NASCELL
from automl.search_spaces.recurrent_cell.space import PRESETS, recurrent_cell
from automl.search_spaces.recurrent_cell.spec import EveryReluCell, RecurrentCell
from automl.search_spaces.recurrent_cell.tree import ACTIVATIONS, BASES, COMBINATIONS, CellNode, CellTree, levels
from automl.search_spaces.space import Space
from automl.search_spaces.spec import canonical_json, spec_to_json
from automl.testing.spaces import sample

# Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`; nothing of ours can change it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# The example of Zoph & Le 2017, section 3.4 and figure 5.
WORKED = RecurrentCell(
    nodes=(CellNode("add", "tanh"), CellNode("multiply", "relu"), CellNode("multiply", "sigmoid")),
    injection=CellNode("add", "relu"),
    memory_node=1,
    injection_node=0,
)


def drawn(seed, **arguments):
    return sample(Space(functools.partial(recurrent_cell, **arguments)), seed).spec


def by_hand(cell, x_products, h_products, c):
    """The cell in plain Python, products by leaf."""
    combine = {"add": lambda a, b: a + b, "multiply": lambda a, b: a * b, "max": max}
    activate = {
        "identity": lambda x: x,
        "tanh": math.tanh,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "relu": lambda x: max(x, 0.0),
        "sin": math.sin,
    }
    values, next_c = [], None
    for index, node in enumerate(cell.nodes):
        inputs = cell.inputs(index)
        pair = (x_products[index], h_products[index]) if inputs is None else tuple(values[i] for i in inputs)
        before = combine[node.combination](*pair)
        value = activate[node.activation](before)
        if index == cell.memory_node:
            next_c = before
        if index == cell.injection_node:
            value = activate[cell.injection.activation](combine[cell.injection.combination](value, c))
        values.append(value)
    return values[-1], next_c


def test_the_paper_s_worked_example_to_the_number():
    # x = 1, h = 2, c = 0.25; W = (0.5, 1.5), U = (0.25, 0.5)
    #   a0 = tanh(0.5 + 0.5) = 0.7615942, then relu(a0 + 0.25) = 1.0115942
    #   a1 = relu(1.5 * 1.0) = 1.5, and c' = 1.5 * 1.0
    #   h' = sigmoid(1.0115942 * 1.5) = sigmoid(1.5173912) = 0.8201540
    cell = TreeCell(WORKED, 1)
    cell.build((None, 1))
    assert WORKED.leaf_order == [0, 1]
    cell.set_weights([np.array([[0.5, 1.5]]), np.array([[0.25, 0.5]])])
    output, (h, c) = cell(np.array([[1.0]]), [np.array([[2.0]]), np.array([[0.25]])])
    assert float(output[0, 0]) == float(h[0, 0]) == pytest.approx(0.8201540, abs=1e-6)
    assert float(c[0, 0]) == pytest.approx(1.5, abs=1e-6)


def test_the_worked_example_as_equations():
    assert WORKED.equations() == [
        "a0 = tanh(x W0 + h U0)",
        "a0 = relu(a0 + c)",
        "next c = x W1 * h U1",
        "a1 = relu(next c)",
        "a2 = sigmoid(a0 * a1)",
        "next h = a2",
    ]
    assert WORKED.line() == "sigmoid(relu(tanh(x + h) + c) * relu'(x * h))"
    assert WORKED.drawing().splitlines() == [
        "next h",
        "sigmoid(product)",
        "├─ tanh(x W0 + h U0), then relu(· + c)",
        "└─ relu(x W1 * h U1)   [next c: before relu]",
    ]


@pytest.mark.parametrize("base", BASES)
def test_a_step_equals_the_definition(base):
    generator = np.random.default_rng(base)
    for seed in range(8):
        cell = drawn(seed, base=base, combinations=COMBINATIONS, activations=ACTIVATIONS)
        units = 3
        layer = TreeCell(cell, units)
        layer.build((None, 2))
        kernel, recurrent = (generator.uniform(-1, 1, (rows, base * units)).astype(np.float32) for rows in (2, units))
        layer.set_weights([kernel, recurrent])
        x, h, c = (generator.uniform(-1, 1, (4, size)).astype(np.float32) for size in (2, units, units))
        output, (state, memory) = layer(x, [h, c])
        np.testing.assert_array_equal(output, state)
        place = {leaf: position for position, leaf in enumerate(cell.leaf_order)}
        for row in range(4):
            for unit in range(units):
                columns = [place[leaf] * units + unit for leaf in range(base)]
                expected = by_hand(cell, (x[row] @ kernel)[columns], (h[row] @ recurrent)[columns], c[row, unit])
                found = float(state[row, unit]), float(memory[row, unit])
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_nodes_are_numbered_level_by_level():
    cell = drawn(0, base=8)
    assert [list(level) for level in levels(8)] == [list(range(8)), [8, 9, 10, 11], [12, 13], [14]]
    assert [cell.inputs(index) for index in (7, 8, 11, 12, 13, 14)] == [
        None,
        (0, 1),
        (6, 7),
        (8, 9),
        (10, 11),
        (12, 13),
    ]


def test_the_published_cell():
    # h' = tanh(p0 * p1) with p0 = n0 * n1 = c', as in TensorFlow Addons; n0 = tanh(tanh(l0 * l1) + c).
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    generator = np.random.default_rng(0)
    xs, hs, c = generator.normal(size=8), generator.normal(size=8), 0.3
    l0, l2, l5, l7 = (sigmoid(xs[i] + hs[i]) for i in (0, 2, 5, 7))
    l1, l3 = max(xs[1] + hs[1], 0), max(xs[3] * hs[3], 0)
    l4, l6 = np.tanh(xs[4] + hs[4]), np.tanh(xs[6] + hs[6])
    n0, n1, n2 = np.tanh(np.tanh(l0 * l1) + c), np.tanh(l2 + l3), np.tanh(l4 * l5)
    n3 = sigmoid(l6 + l7)
    p0, p1 = n0 * n1, np.tanh(n2 + n3)
    assert by_hand(NASCELL, xs, hs, c) == pytest.approx((np.tanh(p0 * p1), p0))
    order = NASCELL.leaf_order
    x, h = (np.array([[values[leaf] for leaf in order]], np.float32) for values in (xs, hs))
    found = [float(value[0, 0]) for value in NASCELL.step(x, h, np.array([[c]], np.float32))]
    assert found == pytest.approx([np.tanh(p0 * p1), p0], abs=1e-6)


def test_the_lstm_is_that_of_keras():
    units, generator = 5, np.random.default_rng(1)
    layer = LSTM().cell(units)
    layer.build((None, 3))
    weights = [generator.uniform(-1, 1, weight.shape).astype(np.float32) for weight in layer.weights]
    layer.set_weights(weights)
    kernel, recurrent, bias = weights
    x, h, c = (generator.uniform(-1, 1, (4, size)).astype(np.float32) for size in (3, units, units))
    _, expected = layer(x, [h, c])
    found = LSTM().step(x @ kernel + bias, h @ recurrent, c)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_cell_works_in_an_rnn_and_is_saved_with_it(tmp_path):
    cell = drawn(3, base=4)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, keras.layers.RNN(TreeCell(cell, 6), return_sequences=True)(inputs))
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.layers[-1].cell.cell == model.layers[-1].cell.cell == CellTree(**dataclasses.asdict(cell))


@pytest.mark.parametrize("base", BASES)
def test_the_source_is_the_cell(base, tmp_path):
    for seed in range(3):
        cell = drawn(seed, base=base, combinations=COMBINATIONS, activations=ACTIVATIONS)
        path = tmp_path / f"cell{seed}.py"
        path.write_text("import keras\nfrom keras import ops\n\n\n" + cell.source())
        written = runpy.run_path(str(path))["TreeCell"](6)
        layer = TreeCell(cell, 6)
        for one in (written, layer):
            one.build((None, 3))
        written.set_weights(layer.get_weights())
        generator = np.random.default_rng(seed)
        x, h, c = (generator.normal(size=(4, size)).astype(np.float32) for size in (3, 6, 6))
        for one, other in zip(written(x, [h, c])[1], layer(x, [h, c])[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    keras.saving.get_custom_objects()["automl>TreeCell"] = TreeCell  # what the file has registered in its place


def swapped(cell, index):
    """The cell with the inputs of an inner node swapped, including their subtrees and marks."""
    moved = {}

    def renumber(old, new):
        moved[old] = new
        for a, b in zip(cell.inputs(old) or (), cell.inputs(new) or (), strict=True):
            renumber(a, b)

    left, right = cell.inputs(index)
    renumber(left, right)
    renumber(right, left)
    nodes = list(cell.nodes)
    for old, new in moved.items():
        nodes[new] = cell.nodes[old]
    places = {name: moved.get(getattr(cell, name), getattr(cell, name)) for name in ("memory_node", "injection_node")}
    return dataclasses.replace(cell, nodes=tuple(nodes), **places)


@pytest.mark.parametrize("base", BASES)
def test_cells_that_differ_by_swapped_inputs_are_one_child(base):
    for seed in range(10):
        cell = drawn(seed, base=base)
        for index in range(base, 2 * base - 1):
            assert canonical_json(swapped(cell, index).canonical()) == canonical_json(cell.canonical())


def test_all_other_small_cells_are_different_children():
    # Base 2, one combination and two activations: 2^3 trees, 2 injections, 3 x 3 places; 144 token lists.
    space = Space(functools.partial(recurrent_cell, base=2, combinations=["add"], activations=["tanh", "relu"]))
    cells = [walk.spec for walk in space.enumerate(0)]
    assert len(cells) == 144
    classes = {canonical_json(cell.canonical()) for cell in cells}
    # A swap exchanges the leaves with their marks. Fixed by it: equal leaves, both marks on the root.
    fixed = sum(cell.nodes[0] == cell.nodes[1] and cell.memory_node == cell.injection_node == 2 for cell in cells)
    assert len(classes) == (144 + fixed) // 2 == (144 + 8) // 2


BLIND = RecurrentCell(  # the second leaf is a product with a state of zeros, and so is the root
    nodes=(CellNode("add", "tanh"), CellNode("multiply", "relu"), CellNode("multiply", "tanh")),
    injection=CellNode("multiply", "tanh"),
    memory_node=1,
    injection_node=0,
)


@pytest.mark.parametrize(
    ("change", "reads_input"),
    [
        ({}, False),
        ({"memory_node": 0}, False),  # a memory that reads x, but is only combined with zeros
        ({"memory_node": 0, "injection_node": 1}, False),
        ({"memory_node": 0, "injection_node": 1, "injection": CellNode("add", "tanh")}, True),
        ({"nodes": (BLIND.nodes[0], CellNode("multiply", "sigmoid"), BLIND.nodes[2])}, False),  # the first leaf meets c
        ({"nodes": (BLIND.nodes[0], CellNode("multiply", "sigmoid"), BLIND.nodes[2]), "injection_node": 1}, False),
        ({"nodes": (*BLIND.nodes[:2], CellNode("add", "tanh")), "injection": CellNode("add", "tanh")}, True),
        ({"nodes": (*BLIND.nodes[:2], CellNode("multiply", "sigmoid"))}, True),  # 0.5 after the first step
        # The first leaf meets a memory that its product with the second keeps at zero: the state is always 0.5.
        ({"nodes": (*BLIND.nodes[:2], CellNode("multiply", "sigmoid")), "memory_node": 2}, False),
    ],
)
def test_whether_a_state_depends_on_the_input(change, reads_input):
    assert dataclasses.replace(BLIND, **change).reads_input is reads_input


def test_a_state_that_does_not_depend_on_the_input_is_the_same_for_any():
    generator = np.random.Generator(np.random.PCG64(0))
    cells = [drawn(seed, base=4, combinations=COMBINATIONS, activations=ACTIVATIONS) for seed in range(400)]
    blind = [cell for cell in cells if not cell.reads_input]
    assert 20 < len(blind) < 100
    for cell in blind:
        states = []
        for _ in range(2):
            h = c = 0.0
            for x_products in generator.uniform(-1.0, 1.0, (5, 4)):
                h, c = by_hand(cell, x_products, np.linspace(-1.0, 1.0, 4) * h, c)
                states.append(h)
        assert states[:5] == states[5:]


def test_decisions_of_a_level_are_of_a_kind():
    walk = sample(Space(functools.partial(recurrent_cell, base=4)), 0)
    kinds = [decision.kind for decision in walk.decisions]
    levels_then_injection = ["level0"] * 4 + ["level1"] * 2 + ["level2", "injection"]
    assert kinds[:-2:2] == [f"{name}_combination" for name in levels_then_injection]
    assert kinds[1:-2:2] == [f"{name}_activation" for name in levels_then_injection]
    assert kinds[-2:] == ["memory_node", "injection_node"]


def test_cells_that_read_no_input_are_one_child():
    other = dataclasses.replace(BLIND, nodes=(*BLIND.nodes[:2], CellNode("multiply", "sigmoid")), memory_node=2)
    assert other.canonical() == BLIND.canonical() != WORKED.canonical()


def test_a_spec_comes_back_from_json_and_from_its_decisions():
    for seed in range(5):
        cell = drawn(seed, base=4)
        plain = json.loads(json.dumps(spec_to_json(cell)))
        assert RecurrentCell(**plain) == cell
        space = Space(functools.partial(recurrent_cell, base=4))
        walk = space.walk(0)
        values = RecurrentCell.decisions(plain)
        while (decision := walk.decision) is not None:
            walk.answer((decision.options.index(values[decision.name]),))
        assert walk.spec == cell


def test_the_size_of_the_paper_s_space():
    space = Space(functools.partial(recurrent_cell, **PRESETS["paper"]))
    walk = space.walk(0)
    sizes = []
    while (decision := walk.decision) is not None:
        sizes.append(len(decision.options))
        walk.answer((0,))
    assert math.prod(sizes) == 8**15 * 8 * 15 * 15  # about 6e16, as the paper says
    assert len(sizes) == 34


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": 3}, "base is 3; a complete tree has 2, 4, 8 or 16 leaves."),
        ({"base": "8"}, "base is '8'; a complete tree has 2, 4, 8 or 16 leaves."),
        ({"base": True}, "base is True; a complete tree has 2, 4, 8 or 16 leaves."),
        (
            {"combinations": ["plus"]},
            "combinations is ['plus']; it must be a list of some of add, multiply, max, each once.",
        ),
        (
            {"activations": []},
            "activations is []; it must be a list of some of identity, tanh, sigmoid, relu, sin, each once.",
        ),
        (
            {"activations": ["tanh", "tanh"]},
            "activations is ['tanh', 'tanh']; it must be a list of some of identity, tanh, sigmoid, relu, sin, each "
            "once.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError) as caught:
        next(recurrent_cell(**arguments))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_node": 3}, "memory_node is 3; the nodes of this cell are 0 to 2."),
        ({"injection_node": -1}, "injection_node is -1; the nodes of this cell are 0 to 2."),
        ({"nodes": WORKED.nodes[:2]}, "A tree of 2 nodes is not complete; base b takes 2b - 1."),
        ({"nodes": WORKED.nodes + WORKED.nodes[:2]}, "base is 3; a complete tree has 2, 4, 8 or 16 leaves."),
        (
            {"injection": {"combination": "add", "activation": "elu"}},
            "An activation is one of identity, tanh, sigmoid, relu, sin, not 'elu'.",
        ),
    ],
)
def test_an_impossible_cell_is_refused(changes, message):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(WORKED, **changes)
    assert str(caught.value) == message


def test_equal_leaves_are_adjacent():
    alike = [(NASCELL.nodes[leaf].combination, NASCELL.nodes[leaf].activation) for leaf in NASCELL.leaf_order]
    assert len([pair for pair, before in zip(alike, [None, *alike], strict=False) if pair != before]) == len(set(alike))
    assert sorted(NASCELL.leaf_order) == list(range(8))


def test_the_graph_names_every_node():
    lines = [line.strip() for line in WORKED.dot().splitlines()]
    assert lines[0] == "digraph child {" and lines[-1] == "}"
    edges = ('"x0" -> "node0"', '"h1" -> "node1"', '"node0" -> "injection"', '"injection" -> "node2"')
    for edge in (*edges, '"c" -> "injection"', '"node1" -> "active1"', '"node1" -> "next c"', '"active1" -> "node2"'):
        assert sum(line.startswith(edge) for line in lines) == 1, edge
    # Operations by their names, the next c before its activation, and no label on an edge, where it floats.
    assert '"node1" [label="multiply"];' in lines and '"active1" [label="relu"];' in lines
    assert not any("->" in line and "label" in line for line in lines)


# Relus without effect


def simplified(cell):
    """The same cell without its redundant relus."""
    activations, injected = cell.without_redundant_relus()
    nodes = [CellNode(node.combination, found) for node, found in zip(cell.nodes, activations, strict=True)]
    injection = CellNode(cell.injection.combination, injected)
    return RecurrentCell(tuple(nodes), injection, cell.memory_node, cell.injection_node)


def trained_alike(cell, steps=5):
    """The outputs of a cell at each step, and the gradients of its weights."""
    generator = np.random.default_rng(3)
    base, units = cell.base, 4
    x = tf.constant(generator.normal(0, 1, (steps, 2, 3)).astype(np.float32))
    kernel = tf.Variable(generator.normal(0, 0.7, (3, base * units)).astype(np.float32))
    recurrent = tf.Variable(generator.normal(0, 0.7, (units, base * units)).astype(np.float32))
    order = tf.constant([index * units + unit for index in cell.leaf_order for unit in range(units)])
    with tf.GradientTape() as tape:
        h = c = tf.zeros((2, units))
        outputs = []
        for step in range(steps):
            products = (tf.gather(matrix, order, axis=1) for matrix in (x[step] @ kernel, h @ recurrent))
            h, c = cell.step(*products, c)
            outputs.append(h)
        total = tf.reduce_sum(tf.stack(outputs) * generator.normal(0, 1, (steps, 2, units)).astype(np.float32))
    return [tf.stack(outputs), *tape.gradient(total, [kernel, recurrent])]


def test_cells_of_one_canonical_form_are_trained_alike():
    changed = 0
    for seed in range(60):
        for preset in ("small", "extended"):
            cell = drawn(seed, **PRESETS[preset])
            other = simplified(cell)
            assert other.canonical() == cell.canonical()
            if other == cell:
                continue
            changed += 1
            for found, expected in zip(trained_alike(other), trained_alike(cell), strict=True):
                np.testing.assert_array_equal(found, expected, err_msg=cell.line())
    assert changed > 20


SIGMOID, RELU, TANH = (CellNode("add", name) for name in ("sigmoid", "relu", "tanh"))


def of_two(left, right, root, injection=CellNode("add", "tanh"), memory_node=0, injection_node=0):  # noqa: B008
    return RecurrentCell((left, right, root), injection, memory_node, injection_node)


@pytest.mark.parametrize(
    ("cell", "same"),
    [
        (of_two(RELU, SIGMOID, RELU, SIGMOID), True),
        (of_two(RELU, SIGMOID, CellNode("multiply", "relu"), SIGMOID), True),
        (of_two(RELU, TANH, RELU, SIGMOID), False),  # a tanh may be negative
        (of_two(RELU, SIGMOID, RELU), False),  # so may the memory that is injected into the first
        (of_two(RELU, SIGMOID, CellNode("max", "relu"), SIGMOID), False),  # a maximum of zeros has gradients
        (of_two(TANH, SIGMOID, RELU, RELU), True),  # the relu of the injection has an effect, and the next one has none
    ],
)
def test_a_relu_of_a_nonnegative_input_makes_no_other_cell(cell, same):
    root = dataclasses.replace(cell.nodes[-1], activation="identity")
    other = RecurrentCell((*cell.nodes[:-1], root), cell.injection, cell.memory_node, cell.injection_node)
    assert (cell.canonical() == other.canonical()) == same
    first = [kept.with_behaviour({"cell_identity": 1}) for kept in (cell, other)]
    assert isinstance(first[0], EveryReluCell) and first[0].canonical() != first[1].canonical()
    assert spec_to_json(first[0]) == spec_to_json(cell)


def test_a_nonnegative_memory_makes_the_relu_of_its_injection_redundant():
    inner = CellNode("multiply", "identity")
    for memory_node, same in ((2, True), (0, False)):  # the sum of what is never negative; of a leaf
        cells = [
            of_two(SIGMOID, RELU, inner, CellNode("add", name), memory_node, injection_node=2)
            for name in ("relu", "identity")
        ]
        assert (cells[0].canonical() == cells[1].canonical()) == same
