import math
import random

import keras
import pytest

from automl.search_spaces.convnet.cost import Cost, count
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.shapes import LayerShapes, joined, net_shapes
from automl.search_spaces.convnet.spec import ConvNet


def random_net(generator, depth):
    """Rectangular filters, strides, poolings and dangling outputs, in no special proportion."""
    return ConvNet(
        tuple(
            ConvLayer(
                generator.choice((1, 3, 5)),
                generator.choice((1, 3, 5)),
                generator.choice((1, 2, 5)),
                tuple(i for i in range(index) if generator.random() < 0.4),
                generator.choice((1, 1, 2, 3)),
                generator.choice((1, 1, 2, 3)),
                pool=generator.random() < 0.2,
            )
            for index in range(depth)
        )
    )


def test_maps_are_joined_at_the_largest_height_and_the_largest_width():
    assert joined([(4, 9, 8), (7, 2, 16), (1, 1, 1)]) == (7, 9, 25)


def test_shapes_by_hand():
    net = ConvNet(
        (
            ConvLayer(3, 3, 8, (), stride_height=2, stride_width=3),
            ConvLayer(1, 1, 4, (), pool=True),
            ConvLayer(1, 5, 6, (0, 1)),
            ConvLayer(1, 1, 2, (0,)),
        )
    )
    shapes = net_shapes(net, (9, 7, 3))
    assert shapes.layers == (
        LayerShapes(read=(9, 7, 3), convolved=(5, 3, 8), output=(5, 3, 8)),
        LayerShapes(read=(9, 7, 3), convolved=(9, 7, 4), output=(5, 4, 4)),
        LayerShapes(read=(5, 4, 12), convolved=(5, 4, 6), output=(5, 4, 6)),
        LayerShapes(read=(5, 3, 8), convolved=(5, 3, 2), output=(5, 3, 2)),
    )
    assert shapes.features == (5, 4, 8)


def test_cost_by_hand():
    # 3 x 5 x 3 x 8 = 360 weights at 16 x 16 places, 4 x 8 of batch norm; 8 x 10 + 10 of the dense layer.
    net = ConvNet((ConvLayer(3, 5, 8, (), stride_height=2, stride_width=2),))
    assert count(net, (32, 32, 3), 10) == Cost(params=360 + 32 + 90, flops=2 * (360 * 256 + 80))


def flops_by_keras(model):
    """From the shapes and weights that Keras has, not from ours."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            places = math.prod(layer.output.shape[1:-1])
            total += 2 * places * math.prod(layer.kernel.shape)
    return total


@pytest.mark.parametrize("seed", range(30))
def test_cost_is_what_keras_counts(seed):
    generator = random.Random(seed)
    net = random_net(generator, depth=generator.randrange(1, 7))
    input_shape = (generator.randrange(1, 14), generator.randrange(1, 14), generator.choice((1, 3)))
    model = net.build(input_shape, 7)
    assert net.count(input_shape, 7) == Cost(model.count_params(), flops_by_keras(model))
    shapes = net_shapes(net, input_shape)
    assert model.get_layer("head_average").input.shape == (None, *shapes.features)
    for index, shape in enumerate(shapes.layers):
        assert model.get_layer(f"layer{index}_conv").input.shape == (None, *shape.read)
        assert model.get_layer(f"layer{index}_conv").output.shape == (None, *shape.convolved)
