"""Images of any scale are the same to a network."""

import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.data.digits import load_digits_data
from automl.child_trainers.images.standardization import (
    LAYER_SOURCE,
    Brightness,
    brightness_of,
    standardization,
    standardization_source,
)
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.images.training import to_device
from automl.child_trainers.recipes import Recipe

DIGITS = load_digits().images[:300, ..., np.newaxis]
RECIPE = Recipe(num_train=200, num_validation=40)
FIRST = Behaviour.of_settings({})


def task_on(folder, images, **options):
    path = folder / "mine.npz"
    np.savez(path, x_train=images[:250], y_train=np.arange(250) % 10, x_validation=images[250:], y_validation=[0] * 50)
    return ImageClassification(f"npz:{path}", RECIPE, **options)


def network_input(task):
    return task.device_data.x_train.numpy(), task.device_data.x_validation.numpy()


SCALES = {
    "0 to 1": lambda x: x / 16,
    "0 to 16 as float": lambda x: x.astype(np.float32),
    "divided by 255": lambda x: x / 255,
    "0 to 255": lambda x: x / 16 * 255,
    "0 to 65535": lambda x: np.round(x / 16 * 65535).astype(np.uint16),
    "-1 to 1": lambda x: x / 8 - 1,
    "tiny": lambda x: x * 1e-20,
    "huge": lambda x: x * 1e25,
    "far from 0": lambda x: x / 16 + 500,
    "inverted": lambda x: 16 - x,
}


@pytest.mark.parametrize("scale", SCALES)
def test_the_network_input_is_the_same_at_every_scale(tmp_path, scale):
    expected = network_input(task_on(tmp_path, DIGITS.astype(np.uint8)))
    scaled = SCALES[scale](DIGITS)
    for found, wanted in zip(network_input(task_on(tmp_path, scaled)), expected, strict=True):
        if scale == "inverted":
            wanted = -wanted
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 1.0, atol=1e-3)


def test_a_search_of_the_first_version_keeps_its_epsilon(tmp_path):
    found, _ = network_input(task_on(tmp_path, DIGITS / 255, behaviour=FIRST))
    assert 0.15 < found.std(axis=(1, 2, 3)).mean() < 0.3


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_built_in_images_count_as_they_are(name):
    assert ImageClassification(name, RECIPE).brightness is None  # which reads nothing


def test_the_digits_are_what_they_were():
    data = load_digits_data().limit(200, 100)
    old = keras.layers.LayerNormalization(axis=[1, 2, 3], center=False, scale=False, epsilon=0.01)
    expected = old(data.x_train.astype(np.float32))
    np.testing.assert_array_equal(to_device(data, ImageClassification("digits", RECIPE).brightness).x_train, expected)


def test_images_from_0_to_255_are_what_they_were(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3)).astype(np.uint8)
    task = task_on(tmp_path, images)
    assert task.brightness == Brightness(0.0, 255.0)
    np.testing.assert_array_equal(task.device_data.x_train, to_device(task.data).x_train)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_image_is_zero(tmp_path, value):
    images = DIGITS / 16
    images[::10] = value
    found, _ = network_input(task_on(tmp_path, images))
    flat = np.abs(found).max(axis=(1, 2, 3)) < 1e-3
    assert np.isfinite(found).all() and flat.sum() == pytest.approx(20, abs=5)
    nothing, _ = network_input(task_on(tmp_path, np.full_like(images, value)))
    np.testing.assert_allclose(nothing, 0.0, atol=1e-3)


def test_a_few_values_far_off_do_not_flatten_the_others(tmp_path):
    images = DIGITS / 16
    images[5, 0, 0] = 1e6
    found, _ = network_input(task_on(tmp_path, images))
    np.testing.assert_allclose(np.sort(found.std(axis=(1, 2, 3)))[5:], 1.0, atol=2e-3)


def test_the_brightness_is_that_of_all_training_images_and_is_kept(tmp_path):
    task = task_on(tmp_path, DIGITS / 16)
    assert task.brightness == Brightness(0.0, 1.0)
    stored = json.loads(json.dumps(task.brightness))
    again = task_on(tmp_path, DIGITS, brightness=stored)
    assert again.brightness == Brightness(0.0, 1.0)  # it is not measured again


def test_the_source_is_the_layer():
    images = (DIGITS[:9] / 100).astype(np.float32)
    for brightness in (None, Brightness(0.0, 255.0), brightness_of(images)):
        source = standardization_source(brightness)
        assert (source == LAYER_SOURCE) == (brightness is None or brightness.high == 255)
        found = {"keras": keras, "layers": keras.layers}
        exec(compile(f"made = {source}", "source.py", "exec"), found)
        np.testing.assert_array_equal(found["made"](images), standardization((8, 8, 1), brightness)(images))


def test_an_exported_model_reads_images_as_they_are_in_the_file(tmp_path):
    task = task_on(tmp_path, DIGITS / 16)
    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    task.with_preprocessing(inner).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = loaded(task.data.x_validation)
    np.testing.assert_array_equal(found, task.device_data.x_validation.numpy().reshape(40, -1))
