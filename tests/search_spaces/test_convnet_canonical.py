import itertools
import random

import pytest

from automl.search_spaces.convnet.canonical import canonical_order
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.spec import canonical_hash


def net_of(inputs, labels=None, pools=None):
    """A network by its inputs; a label gives a filter height."""
    labels = labels or [1] * len(inputs)
    pools = pools or [False] * len(inputs)
    return ConvNet(
        tuple(ConvLayer(label, 3, 8, tuple(i), pool=p) for label, i, p in zip(labels, inputs, pools, strict=True))
    )


def random_net(generator, depth, num_labels, density):
    inputs = [[i for i in range(index) if generator.random() < density] for index in range(depth)]
    labels = [generator.randrange(1, num_labels + 1) for _ in range(depth)]
    return net_of(inputs, labels, [generator.random() < 0.2 for _ in range(depth)])


def renumber(net, order):
    """The same network with its layers written in another topological order."""
    position = {index: place for place, index in enumerate(order)}
    layers = []
    for index in order:
        layer = net.layers[index]
        inputs = tuple(sorted(position[source] for source in layer.inputs))
        layers.append(ConvLayer(layer.filter_height, 3, 8, inputs, pool=layer.pool))
    return ConvNet(tuple(layers))


def random_order(net, generator):
    """A random topological order of the layers."""
    order = []
    while len(order) < len(net.layers):
        ready = [
            index
            for index, layer in enumerate(net.layers)
            if index not in order and all(source in order for source in layer.inputs)
        ]
        order.append(generator.choice(ready))
    return order


def brute_force(net):
    """The smallest encoding over all topological orders: a canonical form by definition."""
    encodings = []
    for order in itertools.permutations(range(len(net.layers))):
        position = {index: place for place, index in enumerate(order)}
        if all(position[source] < position[index] for index in order for source in net.layers[index].inputs):
            layers = renumber(net, order).layers
            encodings.append([(layer.label, layer.inputs) for layer in layers])
    return str(min(encodings))


def all_graphs(num_nodes):
    pairs = list(itertools.combinations(range(num_nodes), 2))
    for bits in itertools.product((0, 1), repeat=len(pairs)):
        inputs = [[] for _ in range(num_nodes)]
        for bit, (source, node) in zip(bits, pairs, strict=True):
            if bit:
                inputs[node].append(source)
        yield inputs


def test_two_layers_of_the_image_written_either_way_are_one_child():
    one = ConvNet((ConvLayer(1, 3, 8, ()), ConvLayer(5, 3, 8, ()), ConvLayer(3, 3, 8, (0,))))
    two = ConvNet((ConvLayer(5, 3, 8, ()), ConvLayer(1, 3, 8, ()), ConvLayer(3, 3, 8, (1,))))
    other = ConvNet((ConvLayer(5, 3, 8, ()), ConvLayer(1, 3, 8, ()), ConvLayer(3, 3, 8, (0,))))
    assert one.canonical() == two.canonical()
    assert canonical_hash(one, (0,)) == canonical_hash(two, (1,)) != canonical_hash(other, (0,))


def test_the_canonical_form_written_by_hand():
    net = ConvNet((ConvLayer(5, 3, 8, ()), ConvLayer(1, 7, 24, (), 2, 3, pool=True), ConvLayer(3, 3, 8, (0,))))
    plain = {"filter_width": 3, "num_filters": 8, "stride_height": 1, "stride_width": 1, "pool": False}
    assert net.canonical() == {
        "layers": [
            {
                "filter_height": 1,
                "filter_width": 7,
                "num_filters": 24,
                "inputs": [],
                "stride_height": 2,
                "stride_width": 3,
                "pool": True,
            },
            {"filter_height": 5, "inputs": [], **plain},
            {"filter_height": 3, "inputs": [1], **plain},
        ]
    }


@pytest.mark.parametrize("field", ["filter_height", "filter_width", "num_filters", "stride_height", "stride_width"])
def test_every_number_of_a_layer_counts(field):
    plain = {"filter_height": 3, "filter_width": 3, "num_filters": 8, "inputs": ()}
    assert ConvNet((ConvLayer(**plain),)).canonical() != ConvNet((ConvLayer(**plain | {field: 2}),)).canonical()


def test_pooling_counts():
    assert net_of([[]]).canonical() != net_of([[]], pools=[True]).canonical()


@pytest.mark.parametrize(("num_nodes", "num_classes"), [(1, 1), (2, 2), (3, 6), (4, 31), (5, 302)])
def test_there_are_as_many_forms_as_unlabelled_acyclic_graphs(num_nodes, num_classes):
    # https://oeis.org/A003087
    assert len({canonical_hash(net_of(inputs), ()) for inputs in all_graphs(num_nodes)}) == num_classes


@pytest.mark.parametrize("num_nodes", [2, 3, 4])
def test_forms_are_equal_exactly_where_brute_force_says_so(num_nodes):
    found = {}
    for inputs in all_graphs(num_nodes):
        for labels in itertools.product((1, 2), repeat=num_nodes):
            net = net_of(inputs, labels)
            found.setdefault(brute_force(net), set()).add(canonical_hash(net, ()))
    assert all(len(hashes) == 1 for hashes in found.values())
    assert len(set.union(*found.values())) == len(found)


def cycles(*lengths):
    """Disjoint cycles: layers of the image, and as many layers that each read two neighbours of a cycle. Colour
    refinement alone cannot tell these graphs apart."""
    starts = list(itertools.accumulate(lengths, initial=0))
    readers = [
        sorted((start + k, start + (k + 1) % length))
        for start, length in zip(starts, lengths, strict=False)
        for k in range(length)
    ]
    return [[]] * sum(lengths) + readers


SYMMETRIC = {
    "20 equal layers": [[]] * 20,
    "10 equal pairs": [[]] * 10 + [[i] for i in range(10)],
    "9 equal pairs and what joins them": [[]] * 9 + [[i] for i in range(9)] + [list(range(9, 18))],
    "9 equal pairs but one": [[]] * 9 + [[i] for i in range(9)] + [[0]],
    "all linked": [list(range(i)) for i in range(20)],
    "all but the opposite": [[]] * 10 + [[j for j in range(10) if j != i] for i in range(10)],
    "one cycle": cycles(10),
    "two cycles": cycles(5, 5),
    "three cycles": cycles(3, 3, 4),
    "two other cycles": cycles(4, 6),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_networks_take_no_factorial_time(name):
    net = net_of(SYMMETRIC[name])
    order = random_order(net, random.Random(name))
    assert renumber(net, order).canonical() == net.canonical()


def test_symmetric_networks_differ():
    assert len({canonical_hash(net_of(inputs), ()) for inputs in SYMMETRIC.values()}) == len(SYMMETRIC)


@pytest.mark.parametrize(("num_labels", "density"), [(1, 0.05), (1, 0.15), (1, 0.5), (3, 0.1), (3, 0.5)])
def test_a_network_written_in_any_order_is_one_child(num_labels, density):
    generator = random.Random(f"{num_labels} {density}")
    for _ in range(40):
        net = random_net(generator, generator.randrange(2, 21), num_labels, density)
        other = renumber(net, random_order(net, generator))
        assert canonical_hash(net, (0,)) == canonical_hash(other, (1,))


def test_the_canonical_form_is_the_same_network_and_its_own_form():
    generator = random.Random(0)
    for _ in range(40):
        net = random_net(generator, 12, 2, 0.2)
        form = net.canonical()
        again = ConvNet(tuple(ConvLayer(**layer) for layer in form["layers"]))  # checks that inputs come first
        assert again.canonical() == form
        assert again.count((9, 9, 3), 5) == net.count((9, 9, 3), 5)


def test_the_order_is_topological():
    assert canonical_order([(2,), (1,), (0,)], [[], [0], [1]]) == [0, 1, 2]
