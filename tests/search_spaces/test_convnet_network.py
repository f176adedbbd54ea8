"""The plain-TensorFlow network is the Keras model: the same numbers from the same weights."""

import math

import numpy as np
import pytest
import tensorflow as tf

from automl.search_spaces.convnet.build import build
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.space import PRESETS, convnet
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.space import Space
from automl.testing import spaces as sampling

CLASSES = 4
BATCH = 6


def sample(seed, **arguments):
    return sampling.sample(Space(lambda: convnet(**arguments)), seed).spec


TINY = {"filter_heights": [1, 2, 3, 4], "filter_widths": [1, 3, 5], "num_filters": [2, 3, 5]}
NETS = {
    "one-layer": (sample(0, depths=[1], **TINY), (9, 7, 3)),
    "one-pixel": (ConvNet((ConvLayer(3, 3, 2, (), pool=True), ConvLayer(1, 1, 3, (0,)))), (1, 1, 2)),
    "chain": (sample(1, depths=[4], skips=False, **TINY), (7, 8, 1)),
    "pools-of-odd-sizes": (sample(2, depths=[4], pooling=[0, 1, 3], skips=False, **TINY), (9, 11, 3)),
    "strides": (sample(3, depths=[4], strides=True, **TINY), (13, 11, 2)),
    "strides-and-pools": (sample(4, depths=[6], strides=True, pooling=[0, 2, 4], **TINY), (12, 17, 3)),
    "skips": (sample(5, depths=[9], **TINY), (8, 8, 1)),
    "skips-and-pools": (sample(6, depths=[8], pooling=[1, 3, 4], **TINY), (10, 9, 3)),
    "small": (sample(7, **PRESETS["small"]), (8, 8, 1)),
    "everything-dangles": (
        ConvNet(
            (
                ConvLayer(3, 3, 2, ()),
                ConvLayer(1, 2, 3, (), 2, 3),
                ConvLayer(2, 1, 2, (), pool=True),
                ConvLayer(5, 5, 2, (), 3, 1, pool=True),
            )
        ),
        (9, 7, 3),
    ),
    "padding": (
        ConvNet(
            (
                ConvLayer(1, 3, 2, (), 3, 1),
                ConvLayer(3, 1, 3, (), 1, 2, pool=True),
                ConvLayer(3, 3, 2, (0, 1)),
                ConvLayer(2, 2, 4, (0, 1, 2), 2, 2),
                ConvLayer(1, 1, 2, (1,)),
            )
        ),
        (11, 9, 2),
    ),
}
every_net = pytest.mark.parametrize("name", NETS)


def images(shape, batch=BATCH, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype(np.float32)


def randomise(network):
    """Randomises also the weights that start as zeros and ones, so that no two weights are equal."""
    generator = np.random.default_rng(1)
    for name, variable in [*network.trainable.items(), *network.moving.items()]:
        if name.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif not name.endswith("kernel"):
            variable.assign(generator.uniform(-0.5, 0.5, variable.shape))


def give(model, network):
    """Gives the network's weights to a Keras model, each by its path."""
    variables = network.trainable | network.moving
    for variable in model.weights:
        variable.assign(variables[variable.path])


def pair(name, **options):
    """A network, the Keras model of the same weights, and images for both."""
    net, shape = NETS[name]
    network = net.network(shape, CLASSES, seed=3, **options)
    randomise(network)
    model = net.build(shape, CLASSES)
    give(model, network)
    return network, model, images(shape)


def snapshot(network, variables=None):
    variables = network.trainable | network.moving if variables is None else variables
    return {name: variable.numpy() for name, variable in variables.items()}


def changed(network, before):
    return {name for name, weight in snapshot(network).items() if np.any(weight != before[name])}


def weighted(logits):
    """A loss with a different weight for every logit."""
    weights = np.random.default_rng(2).normal(size=(BATCH, CLASSES))
    return tf.reduce_sum(logits * tf.constant(weights, tf.float32))


def gradients(logits_of, variables, x):
    with tf.GradientTape() as tape:
        loss = weighted(logits_of(x))
    return {name: gradient.numpy() for name, gradient in tape.gradient(loss, variables).items()}


def assert_close(ours, theirs, name="", tolerance=1e-4):
    """Equal up to a fraction of the largest number among them."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    atol = 1e-6 + tolerance * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=atol, err_msg=name)


def assert_all_close(ours, theirs, tolerance=1e-4):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_close(ours[name], value, name, tolerance)


@every_net
def test_logits_are_the_keras_model_s(name):
    network, model, x = pair(name)
    assert_close(network.logits(x), model(x, training=False))


@every_net
def test_training_logits_gradients_and_moving_averages_are_the_keras_model_s(name):
    network, model, x = pair(name)
    ours = gradients(network.train_logits, network.trainable, x)
    keras_variables = {variable.path: variable.value for variable in model.trainable_variables}
    assert_all_close(ours, gradients(lambda x: model(x, training=True), keras_variables, x))
    assert_all_close(network.moving, {variable.path: variable.numpy() for variable in model.non_trainable_variables})
    assert_close(network.train_logits(x), model(x, training=True))


def test_one_image_of_one_pixel_has_no_variance():
    network, model, _ = pair("one-pixel")
    x = images((1, 1, 2), batch=1)
    assert_close(network.train_logits(x), model(x, training=True))
    assert_all_close(network.moving, {variable.path: variable.numpy() for variable in model.non_trainable_variables})


def test_the_momentum_of_the_averages_is_that_of_build():
    net, shape = NETS["skips-and-pools"]
    network = net.network(shape, CLASSES, seed=0, batch_norm_momentum=0.6)
    model = build(net, shape, CLASSES, batch_norm_momentum=0.6)
    give(model, network)
    network.train_logits(images(shape))
    model(images(shape), training=True)
    assert_all_close(network.moving, {variable.path: variable.numpy() for variable in model.non_trainable_variables})


@every_net
def test_variables_are_named_and_shaped_as_the_keras_model_s(name):
    network, model, _ = pair(name)
    for ours, theirs in (
        (network.trainable, model.trainable_variables),
        (network.moving, model.non_trainable_variables),
    ):
        assert {name: tuple(variable.shape) for name, variable in ours.items()} == {
            variable.path: tuple(variable.shape) for variable in theirs
        }
    assert {"layer0_conv/kernel", "layer0_norm/beta", "logits/bias"} <= network.trainable.keys()


def test_validation_changes_nothing_and_a_training_pass_only_the_averages():
    network, _, x = pair("skips-and-pools")
    before = snapshot(network)
    network.logits(x)
    assert changed(network, before) == set()
    network.train_logits(x)
    assert changed(network, before) == set(network.moving)


# XLA


def other_pooling(name):
    """A network that pools in the ordinary way, one of the same weights that pools in XLA's, and images."""
    ordinary, _, x = pair(name)
    xla, _, _ = pair(name, xla=True)
    return ordinary, xla, x


@pytest.mark.parametrize("name", [name for name, (net, _) in NETS.items() if any(layer.pool for layer in net.layers)])
def test_pooling_for_xla_is_pooling(name):
    ordinary, xla, x = other_pooling(name)
    assert_close(xla.logits(x), ordinary.logits(x), tolerance=1e-6)
    assert_all_close(
        gradients(xla.train_logits, xla.trainable, x), gradients(ordinary.train_logits, ordinary.trainable, x)
    )
    assert_all_close(xla.moving, snapshot(ordinary, ordinary.moving))
    assert_close(xla.train_logits(x), ordinary.train_logits(x), tolerance=1e-6)


@pytest.mark.parametrize("name", ["pools-of-odd-sizes", "padding"])
def test_compiled_by_xla(name):
    ordinary, xla, x = other_pooling(name)

    @tf.function(jit_compile=True, autograph=False)
    def compiled(images):
        with tf.GradientTape() as tape:
            logits = xla.train_logits(images)
            loss = weighted(logits)
        return logits, tape.gradient(loss, xla.trainable)

    logits, found = compiled(x)
    by_hand = gradients(ordinary.train_logits, ordinary.trainable, x)
    assert_all_close({name: gradient.numpy() for name, gradient in found.items()}, by_hand)
    assert_all_close(xla.moving, snapshot(ordinary, ordinary.moving))  # moved once
    assert_close(logits, ordinary.train_logits(x))


# First weights


def first_weights(seed, net=NETS["skips"][0]):
    return snapshot(net.network((8, 8, 3), CLASSES, seed=seed))


def test_equal_seeds_give_equal_weights():
    first = first_weights(5)
    for seed in (5, 6, 2**31 - 1):
        other = first_weights(seed)
        same = {name for name in first if np.array_equal(first[name], other[name])}
        assert same == {name for name in first if seed == 5 or not name.endswith("kernel")}


def test_first_weights():
    weights = first_weights(0)
    starts = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0, "bias": 0.0}
    for name, weight in weights.items():
        kind = name.rsplit("/")[-1]
        if kind in starts:
            np.testing.assert_array_equal(weight, starts[kind], err_msg=name)


def test_kernels_start_glorot_uniform():
    """Of 3 x 5 pixels from 16 to 32 channels: fans of 15 * 16 and 15 * 32. Of the classifier: 32 and 10."""
    net = ConvNet(
        (ConvLayer(1, 1, 16, ()), ConvLayer(3, 5, 32, (0,)), ConvLayer(3, 5, 32, (0,)), ConvLayer(1, 1, 32, (1, 2)))
    )
    weights = snapshot(net.network((8, 8, 3), 10, seed=0))
    for name, limit in [
        ("layer1_conv/kernel", math.sqrt(6 / (15 * 16 + 15 * 32))),
        ("layer2_conv/kernel", math.sqrt(6 / (15 * 16 + 15 * 32))),
        ("logits/kernel", math.sqrt(6 / (32 + 10))),
    ]:
        kernel = weights[name]
        assert 0.97 * limit < np.abs(kernel).max() <= limit
        # Of n uniform draws the mean square has the standard deviation limit^2 * sqrt(4 / 45 / n): six of these.
        assert abs(np.mean(kernel**2) - limit**2 / 3) < 6 * limit**2 * math.sqrt(4 / 45 / kernel.size)
        assert abs(np.mean(kernel)) < 6 * limit / math.sqrt(3 * kernel.size)
    assert np.any(weights["layer1_conv/kernel"] != weights["layer2_conv/kernel"])


# Precision


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02)])
@pytest.mark.parametrize("xla", [False, True])
def test_half_precision_is_close(precision, tolerance, xla):
    for name in ("chain", "strides-and-pools", "padding", "small"):
        full, _, x = pair(name)
        half, _, _ = pair(name, precision=precision, xla=xla)
        assert_close(half.logits(x), full.logits(x), name, 1e-6)  # validation is float32 throughout
        found = half.train_logits(x)
        assert found.dtype == tf.float32
        wanted = full.train_logits(x)
        assert_close(found, wanted, name, tolerance)
        assert np.any(found.numpy() != wanted.numpy())  # and it was computed in another precision
        assert_all_close(half.moving, snapshot(full, full.moving), tolerance)


def test_variables_and_gradients_are_float32_in_every_precision():
    for precision in ("float32", "bfloat16", "float16"):
        network, _, x = pair("skips-and-pools", precision=precision)
        variables = [*network.trainable.values(), *network.moving.values()]
        assert {variable.dtype for variable in variables} == {tf.float32}
        found = gradients(network.train_logits, network.trainable, x)
        assert {gradient.dtype for gradient in found.values()} == {np.dtype(np.float32)}
        assert network.logits(x).dtype == tf.float32
