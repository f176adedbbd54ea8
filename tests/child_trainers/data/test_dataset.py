import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from automl import child_trainers
from automl.child_trainers.data.dataset import DataError, ImageData, shuffled_indices, split


def make_data(**changes):
    arrays = {
        "name": "tiny",
        "x_train": np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3, 1),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.int32),
        "x_validation": np.zeros((4, 2, 3, 1), np.uint8),
        "y_validation": np.array([0, 1, 2, 0], np.int32),
        "num_classes": 3,
    }
    return ImageData(**arrays | changes)


def test_input_shape_is_height_width_channels():
    assert make_data().input_shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "tiny needs at least 2 classes, got num_classes=1."),
        ({"x_test": np.zeros((1, 2, 3, 1), np.uint8)}, "tiny has only one of x_test and y_test; give both or neither."),
        (
            {"x_train": np.zeros((6, 2, 3))},
            "x_train of tiny must be uint8 or float32 of shape (count, height, width, channels), "
            "found float64 of shape (6, 2, 3).",
        ),
        (
            {"x_validation": np.zeros((0, 2, 3, 1), np.uint8), "y_validation": np.zeros(0, np.int32)},
            "x_validation of tiny is empty: its shape is (0, 2, 3, 1).",
        ),
        (
            {"x_validation": np.zeros((4, 3, 3, 1), np.float32)},
            "x_validation of tiny holds float32 images of shape (3, 3, 1), "
            "but x_train holds uint8 images of shape (2, 3, 1).",
        ),
        (
            {"y_train": np.zeros(5, np.int64)},
            "y_train of tiny must be int32 of shape (6,), one label for each image, found int64 of shape (5,).",
        ),
        (
            {"y_train": np.array([0, 1, 2, 3, 1, 2], np.int32)},
            "y_train of tiny must lie between 0 and 2, found labels from 0 to 3.",
        ),
    ],
)
def test_arrays_that_break_a_rule_are_refused(changes, message):
    with pytest.raises(DataError) as raised:
        make_data(**changes)
    assert str(raised.value) == message


def test_fingerprint_is_a_function_of_the_arrays_alone():
    data = make_data()
    assert data.fingerprint == make_data(name="another name").fingerprint
    # Column-major copies hold the same values in another order of bytes.
    assert data.fingerprint == make_data(x_train=np.asfortranarray(data.x_train)).fingerprint
    # The value that a release computed must not change in the next one: searches store it.
    assert data.fingerprint == "98e1f1afd8ef378dc13ea6446bcfc97787bd6c7eff0ff762209cb303d7cc6483"


def test_fingerprint_sees_every_value_shape_and_dtype():
    data = make_data()
    changed = data.x_train.copy()
    changed[5, 1, 2, 0] += 1
    others = [
        make_data(x_train=changed),
        make_data(y_validation=np.array([0, 1, 2, 1], np.int32)),
        make_data(x_train=data.x_train.reshape(6, 3, 2, 1), x_validation=data.x_validation.reshape(4, 3, 2, 1)),
        make_data(x_train=data.x_train.astype(np.float32), x_validation=data.x_validation.astype(np.float32)),
        make_data(x_test=data.x_validation, y_test=data.y_validation),
    ]
    assert len({item.fingerprint for item in [data, *others]}) == 6


def test_limit_takes_the_first_images_and_leaves_the_test_set():
    data = make_data(x_test=np.zeros((2, 2, 3, 1), np.uint8), y_test=np.zeros(2, np.int32))
    small = data.limit(2)
    np.testing.assert_array_equal(small.x_train, data.x_train[:2])
    np.testing.assert_array_equal(small.y_train, [0, 1])
    assert (len(small.x_validation), len(small.x_test)) == (4, 2)
    assert small.fingerprint != data.fingerprint
    assert len(data.limit(2, 3).y_validation) == 3


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((7,), "tiny has 6 training images, so it cannot be limited to 7."),
        ((0,), "tiny has 6 training images, so it cannot be limited to 0."),
        ((6, 5), "tiny has 4 validation images, so it cannot be limited to 5."),
    ],
)
def test_limit_refuses_more_than_there_is(limits, message):
    with pytest.raises(DataError) as raised:
        make_data().limit(*limits)
    assert str(raised.value) == message


def test_split_keeps_every_image_with_its_label():
    x = np.arange(100)
    x_train, y_train, x_validation, y_validation = split(x, x * 2, num_validation=30, seed=5)
    assert len(x_train) == 70 and len(x_validation) == 30
    np.testing.assert_array_equal(np.sort(np.concatenate([x_train, x_validation])), x)
    np.testing.assert_array_equal(y_train, x_train * 2)
    np.testing.assert_array_equal(y_validation, x_validation * 2)


def test_split_neither_reads_nor_moves_the_global_generator():
    np.random.seed(1)
    first = split(np.arange(50), np.arange(50), 10, seed=3)
    state = np.random.get_state()[1]
    second = split(np.arange(50), np.arange(50), 10, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_shuffled_indices_are_what_they_always_were():
    """The split of every stored search hangs on these: they must survive a change of NumPy."""
    assert shuffled_indices(8, seed=0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert shuffled_indices(8, seed=1).tolist() == [2, 4, 7, 5, 0, 6, 3, 1]


@pytest.mark.parametrize(
    ("num_labels", "num_validation", "message"),
    [
        (9, 2, "There are 10 images but 9 labels."),
        (10, 10, "Cannot hold out 10 of 10 images for validation: both parts need at least one."),
        (10, 0, "Cannot hold out 0 of 10 images for validation: both parts need at least one."),
    ],
)
def test_split_refuses(num_labels, num_validation, message):
    with pytest.raises(DataError) as raised:
        split(np.arange(10), np.arange(num_labels), num_validation, seed=0)
    assert str(raised.value) == message


def test_importing_the_data_sets_imports_nothing_heavy():
    program = (
        "import sys; from automl.child_trainers.data import cifar10, digits, npz;"
        "print([name for name in ('tensorflow', 'keras', 'sklearn') if name in sys.modules])"
    )
    root = Path(child_trainers.__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
