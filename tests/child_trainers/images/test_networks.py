"""Networks as the trainer sees them, and their weights on the way to a Keras model."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from automl.child_trainers.devices import FLOAT32, Compute
from automl.child_trainers.images.networks import KerasNetwork, make_network, set_weights
from automl.child_trainers.training.trainer import weights_of
from automl.db import blobs
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.network import ConvNetwork
from automl.search_spaces.convnet.spec import ConvNet

SHAPE, CLASSES = (5, 4, 2), 3
DEEP = ConvNet(tuple(ConvLayer(1, 1, 2, (index - 1,) if index else ()) for index in range(12)))


def dense_model(widths=(4,)):
    """With batch normalization: its passes differ, and gradients do not train all of its weights."""
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    for width in widths:
        model.add(keras.layers.Dense(width))
        model.add(keras.layers.BatchNormalization())
    model.add(keras.layers.Dense(CLASSES))
    return model


def images(count=6):
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float32)


def randomise(network):
    """No weight is equal to another, or to its start."""
    generator = np.random.default_rng(1)
    for variable in [*network.trainable.values(), *network.moving.values()]:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))


# A Keras model as a network


def test_the_passes_are_the_model_s():
    model, same = dense_model(), dense_model()
    network = KerasNetwork(model)
    randomise(network)
    same.set_weights(model.get_weights())
    x = images()
    validation, training = same(x, training=False), same(x, training=True)
    assert np.any(np.asarray(validation) != training)
    np.testing.assert_array_equal(network.logits(x), validation)
    np.testing.assert_array_equal(network.train_logits(x), training)
    np.testing.assert_equal(model.get_weights(), same.get_weights())  # the averages were moved alike


def test_gradients_train_what_the_model_says():
    model = dense_model()
    network = KerasNetwork(model)
    # Kernel, bias; scale, offset, mean, variance; kernel, bias.
    assert list(network.trainable) == [f"weight{place:04d}" for place in (0, 1, 2, 3, 6, 7)]
    assert list(network.moving) == ["weight0004", "weight0005"]
    model.layers[1].trainable = False
    frozen = KerasNetwork(model)
    assert list(frozen.trainable) == [f"weight{place:04d}" for place in (2, 3, 6, 7)]
    assert frozen.trainable.keys() | frozen.moving.keys() == network.trainable.keys() | network.moving.keys()


def test_the_variables_are_the_model_s_own():
    model = dense_model()
    network = KerasNetwork(model)
    randomise(network)
    for place, weight in enumerate(model.get_weights()):
        np.testing.assert_array_equal(weights_of(network)[f"weight{place:04d}"], weight)


def test_a_model_without_anything_to_move():
    network = KerasNetwork(dense_model(widths=()))
    assert (len(network.trainable), network.moving) == (2, {})


# Weights


def keras_pair():
    """26 weights, most of which are of one shape: numbers of one and of two digits must not be mixed up."""
    model, other = dense_model([4] * 4), dense_model([4] * 4)
    return KerasNetwork(model), other


def own_pair():
    return DEEP.network(SHAPE, CLASSES, seed=0), DEEP.build(SHAPE, CLASSES)


pairs = pytest.mark.parametrize("make_pair", [keras_pair, own_pair])


@pairs
def test_weights_come_back_as_a_keras_model(make_pair):
    network, model = make_pair()
    randomise(network)
    weights = weights_of(network)
    assert len(weights) == len(model.weights) > 10
    blob = blobs.pack(weights)  # as the store keeps them
    stored = blobs.unpack(blob, blobs.sha256(blob))
    for given in (stored, dict(sorted(stored.items(), reverse=True))):
        set_weights(model, {name: np.zeros_like(weight) for name, weight in stored.items()})
        set_weights(model, given)
        np.testing.assert_allclose(model(images(), training=False), network.logits(images()), rtol=1e-4, atol=1e-4)


@pairs
def test_weights_of_a_network_are_a_copy(make_pair):
    network, _ = make_pair()
    before = weights_of(network)
    assert before.keys() == network.trainable.keys() | network.moving.keys()
    kept = {name: weight.copy() for name, weight in before.items()}
    randomise(network)
    np.testing.assert_equal(before, kept)


@pairs
def test_weights_of_another_model_are_refused(make_pair):
    network, model = make_pair()
    weights = weights_of(network)
    first = next(iter(weights))
    for wrong in (
        {},
        {name: weight for name, weight in weights.items() if name != first},
        weights | {"one_more": np.zeros(2, np.float32)},
        weights | {first: np.zeros((7, 7), np.float32)},
    ):
        with pytest.raises(ValueError):
            set_weights(model, wrong)


@pairs
def test_weights_of_other_names_are_refused_whatever_their_shapes(make_pair):
    network, model = make_pair()
    weights = weights_of(network)
    before = model.get_weights()
    last = max(weights)
    moved = {name: weight for name, weight in weights.items() if name != last} | {"other": weights[last]}
    renamed = {f"other{place:04d}": weight for place, weight in enumerate(weights.values())}
    for wrong, first in ((moved, min(moved)), (renamed, "other0000")):
        with pytest.raises(ValueError, match=f"weights of other names: {first}, "):
            set_weights(model, wrong)
    np.testing.assert_equal(model.get_weights(), before)


# Which network a spec gets


class Built:
    """A spec of a space that only builds Keras models."""

    def __init__(self):
        self.names = []

    def build(self, input_shape, num_classes):
        assert (input_shape, num_classes) == (SHAPE, CLASSES)
        model = dense_model()
        self.names.append([layer.name for layer in model.layers])
        return model


def test_a_spec_s_own_network_is_taken():
    net = ConvNet((ConvLayer(3, 3, 4, (), pool=True),))
    asked = Compute("bfloat16", xla=True)
    network, compute = make_network(net, SHAPE, CLASSES, seed=7, compute=asked)
    assert isinstance(network, ConvNetwork) and compute == asked
    same = net.network(SHAPE, CLASSES, seed=7, precision="bfloat16", xla=True)
    np.testing.assert_equal(weights_of(network), weights_of(same))
    np.testing.assert_array_equal(network.train_logits(images()), same.train_logits(images()))


def test_a_spec_s_own_network_is_told_how_to_compute():
    given = {}

    class Own:
        def network(self, input_shape, num_classes, **options):
            given.update(options, shape=input_shape, classes=num_classes)
            return "network"

    asked = Compute("float16")
    assert make_network(Own(), SHAPE, CLASSES, seed=3, compute=asked) == ("network", asked)
    assert given == {"shape": SHAPE, "classes": CLASSES, "seed": 3, "precision": "float16", "xla": False}


def test_any_other_spec_is_built_and_trained_in_float32():
    spec = Built()
    network, compute = make_network(spec, SHAPE, CLASSES, seed=7, compute=Compute("bfloat16", xla=True))
    assert isinstance(network, KerasNetwork) and compute == FLOAT32
    assert {variable.dtype for variable in network.trainable.values()} == {tf.float32}
    again, _ = make_network(spec, SHAPE, CLASSES, seed=7, compute=FLOAT32)
    other, _ = make_network(spec, SHAPE, CLASSES, seed=8, compute=FLOAT32)
    assert spec.names[0] == spec.names[1] == spec.names[2]  # nothing is left of the child before
    np.testing.assert_equal(weights_of(network), weights_of(again))
    assert np.any(weights_of(network)["weight0000"] != weights_of(other)["weight0000"])


@pytest.mark.parametrize("spec", [Built(), ConvNet((ConvLayer(1, 1, 2, ()),))], ids=["built", "own"])
def test_every_child_starts_from_its_seed(spec):
    drawn = []
    for seed in (1, 1, 2):
        make_network(spec, SHAPE, CLASSES, seed=seed, compute=FLOAT32)
        drawn.append((random.random(), np.random.random()))
    assert drawn[0] == drawn[1] != drawn[2]


# Outputs


def ending(*layers):
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES), *layers])


def functional():
    image = keras.Input(SHAPE)
    return keras.Model(image, keras.layers.Softmax()(ending()(image)))


def nested():
    image = keras.Input(SHAPE)
    return keras.Model(image, ending(keras.layers.Activation("softmax"))(image))


SOFTMAX = {
    "dense": lambda: ending(keras.layers.Dense(CLASSES, activation="softmax")),
    "activation": lambda: ending(keras.layers.Activation(keras.activations.softmax, dtype="float32")),
    "functional": functional,
    "nested": nested,
}
LOGITS = {
    "dense": ending,
    "another activation": lambda: ending(keras.layers.Dense(CLASSES, activation="tanh")),
    "attention": lambda: ending(keras.layers.Softmax(), keras.layers.Dense(CLASSES)),
}


class Made:
    def __init__(self, make):
        self._make = make

    def build(self, input_shape, num_classes):
        return self._make()


@pytest.mark.parametrize("kind", SOFTMAX)
def test_a_model_that_ends_in_a_softmax_is_refused(kind):
    """Except in an earlier search, which trains it as it did."""
    with pytest.raises(ValueError, match="ends in a softmax; its outputs must be logits, because the loss applies"):
        make_network(Made(SOFTMAX[kind]), SHAPE, CLASSES, seed=0, compute=FLOAT32)
    network, _ = make_network(Made(SOFTMAX[kind]), SHAPE, CLASSES, seed=0, compute=FLOAT32, may_end_in_softmax=True)
    np.testing.assert_allclose(np.sum(network.logits(images()), axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("kind", LOGITS)
def test_other_models_give_logits(kind):
    make_network(Made(LOGITS[kind]), SHAPE, CLASSES, seed=0, compute=FLOAT32)
