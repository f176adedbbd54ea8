import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from automl.search_spaces.convnet.build import build
from automl.search_spaces.convnet.layers import ConvLayer
from automl.search_spaces.convnet.space import PRESETS, convnet
from automl.search_spaces.convnet.spec import ConvNet
from automl.search_spaces.space import Space
from automl.testing import spaces as sampling

INPUT_SHAPE = (9, 7, 3)


def sample(seed, **arguments):
    return sampling.sample(Space(lambda: convnet(**arguments)), seed).spec


def images(batch, input_shape=INPUT_SHAPE):
    return np.random.default_rng(0).normal(size=(batch, *input_shape)).astype("float32")


def neutralise_batch_norm(model):
    """Makes every batch normalization pass its input on: variance + epsilon = 1, mean 0, scale 1, offset 0."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1 - layer.epsilon, "float32"))


def outputs_of(model, *names):
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def test_smaller_maps_are_padded_with_zeros_at_bottom_and_right():
    net = ConvNet(
        (
            ConvLayer(1, 1, 1, ()),
            ConvLayer(1, 1, 1, (), stride_height=2, stride_width=2),
            ConvLayer(1, 1, 1, (0, 1)),
        )
    )
    model = net.build((3, 3, 1), 2)
    neutralise_batch_norm(model)
    for name, weights in [("layer0", [1]), ("layer1", [10]), ("layer2", [1, 1])]:
        model.get_layer(f"{name}_conv").set_weights([np.reshape(weights, (1, 1, -1, 1)).astype("float32")])
    image = np.arange(1, 10, dtype="float32").reshape(1, 3, 3, 1)
    joined, summed, mean = outputs_of(model, "layer2_concat", "layer2_relu", "head_average")(image)
    np.testing.assert_allclose(joined[0, :, :, 0], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], rtol=1e-5)
    np.testing.assert_allclose(joined[0, :, :, 1], [[10, 30, 0], [70, 90, 0], [0, 0, 0]], rtol=1e-5)
    np.testing.assert_allclose(summed[0, :, :, 0], [[11, 32, 3], [74, 95, 6], [7, 8, 9]], rtol=1e-5)
    np.testing.assert_allclose(mean, [[245 / 9]], rtol=1e-5)


def test_pooling_takes_the_largest_of_two_by_two():
    model = ConvNet((ConvLayer(1, 1, 1, (), pool=True),)).build((3, 3, 1), 2)
    neutralise_batch_norm(model)
    model.get_layer("layer0_conv").set_weights([np.ones((1, 1, 1, 1), "float32")])
    pooled = outputs_of(model, "layer0_pool")(np.arange(1, 10, dtype="float32").reshape(1, 3, 3, 1))
    np.testing.assert_allclose(pooled[0, :, :, 0], [[5, 6], [8, 9]], rtol=1e-5)


def test_dangling_outputs_all_go_to_the_classifier():
    net = ConvNet(tuple(ConvLayer(1, 1, filters, inputs) for filters, inputs in [(2, ()), (3, ()), (4, (0,))]))
    model = net.build(INPUT_SHAPE, 5)
    assert model.get_layer("head_average").output.shape == (None, 3 + 4)
    assert model.output.shape == (None, 5)


def test_layers_have_readable_names():
    net = ConvNet(
        (
            ConvLayer(3, 3, 2, (), 2, 2),
            ConvLayer(3, 3, 2, (), pool=False),
            ConvLayer(3, 3, 2, (0, 1), pool=True),
            ConvLayer(3, 3, 2, (0, 1)),
        )
    )
    assert {layer.name for layer in net.build((8, 8, 3), 5).layers} == {
        "image",
        *("layer0_conv", "layer0_norm", "layer0_relu", "layer0_pad_8x8"),  # padded once for two readers
        *("layer1_conv", "layer1_norm", "layer1_relu"),
        *("layer2_concat", "layer2_conv", "layer2_norm", "layer2_relu", "layer2_pool", "layer2_pad_8x8"),
        *("layer3_concat", "layer3_conv", "layer3_norm", "layer3_relu"),
        *("head_concat", "head_average", "logits"),
    }


def test_batch_norm_momentum_can_be_set():
    net = ConvNet((ConvLayer(1, 1, 1, ()),))
    assert net.build(INPUT_SHAPE, 2).get_layer("layer0_norm").momentum == 0.9
    assert build(net, INPUT_SHAPE, 2, batch_norm_momentum=0.99).get_layer("layer0_norm").momentum == 0.99


def test_building_twice_from_one_seed_gives_one_model():
    net = sample(0, depths=[4])
    predictions = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        predictions.append(np.asarray(net.build(INPUT_SHAPE, 4)(images(2))))
    np.testing.assert_array_equal(*predictions)


def load(text):
    namespace = {"__name__": "generated"}
    exec(compile(text, "generated.py", "exec"), namespace)
    return namespace["build"]()


def randomise(model):
    """Randomises also the weights that start as zeros and ones, so that a wrong order is noticed."""
    generator = np.random.default_rng(1)
    model.set_weights([generator.uniform(0.5, 1.5, size=weight.shape) for weight in model.get_weights()])


SAMPLES = [
    sample(0, depths=[1], filter_heights=[3], strides=True),
    sample(1, depths=[3], num_filters=[2, 3], skips=False, pooling=[1]),
    sample(2, **PRESETS["small"]),
    sample(3, **PRESETS["small"]),
    sample(4, depths=[8], num_filters=[2, 3], strides=True, pooling=[2]),
    sample(5, depths=[12], num_filters=[3], filter_heights=[1, 3], strides=True),
]


@pytest.mark.parametrize("net", SAMPLES, ids=lambda net: f"depth{len(net.layers)}")
def test_the_source_builds_the_same_model(net):
    model, generated = net.build(INPUT_SHAPE, 4), load(net.source(INPUT_SHAPE, 4))
    assert generated.count_params() == model.count_params()
    assert [weight.path.rsplit("/")[-1] for weight in generated.weights] == [
        weight.path.rsplit("/")[-1] for weight in model.weights
    ]
    randomise(model)
    generated.set_weights(model.get_weights())
    np.testing.assert_array_equal(generated(images(3)), model(images(3)))
    np.testing.assert_array_equal(generated(images(3), training=True), model(images(3), training=True))


def test_the_source_reads_like_this():
    net = ConvNet(
        (
            ConvLayer(3, 5, 24, ()),
            ConvLayer(1, 7, 36, (0,), 2, 3, pool=True),
            ConvLayer(3, 3, 48, (0, 1)),
        )
    )
    text = net.source((32, 32, 3), 10)
    assert text.startswith('"""A convolutional network that automl found, of depth 3.\n')
    assert text.endswith(
        """
def build():
    image = keras.Input((32, 32, 3), name="image")
    layer0 = conv(image, 24, (3, 5))
    layer1 = pool(conv(layer0, 36, (1, 7), strides=(2, 3)))
    inputs2 = join(layer0, layer1)
    layer2 = conv(inputs2, 48, (3, 3))
    features = layers.GlobalAveragePooling2D()(layer2)
    logits = layers.Dense(10, name="logits")(features)
    return keras.Model(image, logits)


if __name__ == "__main__":
    build().summary()
"""
    )


def test_the_source_has_only_the_helpers_it_needs():
    text = ConvNet((ConvLayer(3, 3, 24, ()),)).source((32, 32, 3), 10)
    assert "def conv(" in text
    assert "def pool(" not in text
    assert "def join(" not in text


@pytest.mark.skipif(shutil.which("ruff", path=sys.prefix + "/bin") is None, reason="ruff is not installed")
def test_the_source_is_formatted(tmp_path):
    # Both ways to break a long line: 20 dangling layers, and 14 to 16 inputs.
    wide = ConvNet(tuple(ConvLayer(1, 1, 8, ()) for _ in range(20)))
    deep = ConvNet(tuple(ConvLayer(1, 1, 8, tuple(range(index))) for index in range(20)))
    for number, net in enumerate([*SAMPLES, wide, deep]):
        (tmp_path / f"net{number}.py").write_text(net.source(INPUT_SHAPE, 4))
    ruff = [sys.prefix + "/bin/ruff"]
    options = ["--isolated", "--no-cache", "--line-length=120", str(tmp_path)]
    for command in (["check", "--select=E,F,W,I,UP,B,SIM,RUF"], ["format", "--check", "--diff"]):
        done = subprocess.run([*ruff, *command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_paper_network_of_20_layers_trains_a_step():
    arguments = PRESETS["paper"] | {"depths": [20]}
    net = sample(0, **arguments)
    assert len(net.layers) == 20
    # Images of 8 x 8 instead of 32 x 32 cost a sixteenth, and no layer of this preset has a stride.
    model = net.build((8, 8, 3), 10)
    before = model.get_weights()
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    loss = model.train_on_batch(images(2, (8, 8, 3)), np.array([3, 7]))
    assert np.isfinite(loss)
    assert all(not np.array_equal(old, new.numpy()) for old, new in zip(before, model.weights, strict=True))
