import os
import pickle
import zipfile

import numpy as np
import pytest

from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.data.npz import load_npz

LABELS = np.arange(20) % 4


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def images(count=20, height=5, width=6, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels))


def save(folder, **arrays):
    """A file with valid training data, but for the arrays given; None leaves one out."""
    path = folder / "mine.npz"
    arrays = {"x_train": images(), "y_train": LABELS} | arrays
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


def message_of(path):
    """Without the path, which differs from run to run."""
    with pytest.raises(DataError) as raised:
        load_npz(path)
    return str(raised.value).replace(str(path), "FILE")


def test_all_parts_come_back(tmp_path):
    x, x_validation, x_test = images(), images(8), images(5)
    path = save(
        tmp_path,
        x_train=x,
        x_validation=x_validation,
        y_validation=LABELS[:8],
        x_test=x_test,
        y_test=LABELS[:5].reshape(5, 1),
    )
    data = load_npz(path, stratified=False)
    assert (data.name, data.num_classes, data.input_shape) == ("mine", 4, (5, 6, 3))
    for found, expected in ((data.x_train, x), (data.x_validation, x_validation), (data.x_test, x_test)):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    for found, expected in ((data.y_train, LABELS), (data.y_validation, LABELS[:8]), (data.y_test, LABELS[:5])):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)


def test_a_tenth_is_held_out_where_there_is_no_validation_set(tmp_path):
    x = images()
    data = load_npz(save(tmp_path, x_train=x))
    assert (len(data.x_train), len(data.x_validation), data.x_test) == (18, 2, None)
    label_of = {image.tobytes(): label for image, label in zip(x.astype(np.uint8), LABELS, strict=True)}
    for held in (data.x_train, data.y_train), (data.x_validation, data.y_validation):
        assert [label_of.pop(image.tobytes()) for image in held[0]] == held[1].tolist()
    assert not label_of
    assert load_npz(tmp_path / "mine.npz").fingerprint == data.fingerprint


def sorted_by_class(folder, counts, validation=None):
    """A file whose images, each of which is another, are sorted by class."""
    made = {}
    for part, sizes in (("train", counts), ("validation", validation)):
        if sizes is not None:
            labels = np.repeat(np.arange(len(sizes)), sizes)
            made |= {f"y_{part}": labels, f"x_{part}": np.arange(labels.size * 4, dtype=np.float32).reshape(-1, 2, 2)}
    return save(folder, **({"x_train": None, "y_train": None} | made))


def shares(labels, num_classes):
    return np.bincount(labels, minlength=num_classes)


def test_images_sorted_by_class_are_drawn_with_every_class_in_its_share(tmp_path):
    path = sorted_by_class(tmp_path, [100] * 10, [20] * 10)
    data = load_npz(path).limit(200, 50)
    assert shares(data.y_train, 10).tolist() == [20] * 10
    assert shares(data.y_validation, 10).tolist() == [5] * 10
    assert load_npz(path).fingerprint == load_npz(path).fingerprint
    for count in (10, 37, 100, 512):
        for last in (False, True):
            found = shares(load_npz(path).limit(count, last=last).y_train, 10)
            assert found.max() - found.min() <= 1
    kept = load_npz(path, stratified=False).limit(200)
    assert shares(kept.y_train, 10).tolist() == [100, 100] + [0] * 8  # as 0.1.0 had it


def test_every_image_keeps_its_label_and_stays_in_its_part(tmp_path):
    path = sorted_by_class(tmp_path, [7, 2, 1, 30], [3, 3])
    drawn, kept = load_npz(path), load_npz(path, stratified=False)
    for part in ("train", "validation"):
        pairs = [
            sorted(
                (image.tobytes(), label)
                for image, label in zip(*(getattr(data, f"{a}_{part}") for a in "xy"), strict=True)
            )
            for data in (drawn, kept)
        ]
        assert pairs[0] == pairs[1]
    assert (drawn.y_train != kept.y_train).any()


def test_rare_classes_come_first(tmp_path):
    data = load_npz(sorted_by_class(tmp_path, [500, 3, 1, 496], [5, 1, 1, 5]))
    assert set(data.limit(4).y_train) == {0, 1, 2, 3}
    assert shares(data.limit(100).y_train, 4).tolist() == pytest.approx([50, 1, 1, 48], abs=1)
    assert set(data.limit(4, 4).y_validation) == {0, 1, 2, 3}


def test_what_is_held_out_has_every_class_in_its_share(tmp_path):
    data = load_npz(sorted_by_class(tmp_path, [100, 60, 30, 9, 1]))
    assert shares(data.y_train, 5).tolist() == pytest.approx([90, 54, 27, 8, 1], abs=1)
    held_out = shares(data.y_validation, 5)
    assert held_out.sum() == 20 and (held_out[:4] >= 1).all() and held_out[4] == 0
    two = load_npz(sorted_by_class(tmp_path, [1, 1]))
    assert (len(two.y_train), len(two.y_validation)) == (1, 1)


def test_compressed_files_are_read(tmp_path):
    np.savez_compressed(tmp_path / "small.npz", x_train=images(), y_train=LABELS)
    assert load_npz(tmp_path / "small.npz").fingerprint == load_npz(save(tmp_path)).fingerprint


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (images().astype(np.uint8), np.uint8),
        (images().astype(">i8"), np.uint8),
        (images() > 100, np.uint8),
        (images() + 1, np.float32),
        (images() - 1, np.float32),
        (images().astype(np.float16), np.float32),
        (images().astype(np.float64) / 255, np.float32),
    ],
    ids=["uint8", "int64", "bool", "over 255", "below 0", "float16", "float64"],
)
def test_integers_up_to_255_become_uint8_and_all_else_float32(tmp_path, x, dtype):
    data = load_npz(save(tmp_path, x_train=x, x_validation=x, y_validation=LABELS), stratified=False)
    assert data.x_train.dtype == dtype
    np.testing.assert_allclose(data.x_train, x, rtol=1e-6)


def test_one_part_of_other_type_makes_all_float32(tmp_path):
    data = load_npz(save(tmp_path, x_test=images(3) / 255, y_test=LABELS[:3]))
    assert data.x_train.dtype == data.x_validation.dtype == data.x_test.dtype == np.float32


def test_three_axes_are_images_of_one_channel(tmp_path):
    assert load_npz(save(tmp_path, x_train=images()[..., 0])).input_shape == (5, 6, 1)


def with_value(value):
    x = images().astype(np.float64)
    x[17, 2, 3, 1] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": None}, "FILE lacks y_train; it holds x_train."),
        (
            {"x_validation": images()},
            "FILE lacks y_validation; it holds x_train, x_validation, y_train.",
        ),
        (
            {"x_val": images(), "y_val": LABELS},
            "FILE holds x_val, which is not one of x_train, y_train, x_validation, y_validation, x_test, y_test; "
            "rename or remove it.",
        ),
        (
            {"x_train": images()[0, 0]},
            "x_train in FILE must hold numbers in shape (count, height, width, channels), found int64 of shape (6, 3).",
        ),
        (
            {"x_train": images().astype(complex)},
            "x_train in FILE must hold numbers in shape (count, height, width, channels), "
            "found complex128 of shape (20, 5, 6, 3).",
        ),
        (
            {"x_train": images().astype(str)},
            "x_train in FILE must hold numbers in shape (count, height, width, channels), "
            "found <U21 of shape (20, 5, 6, 3).",
        ),
        ({"x_train": images(0)}, "x_train in FILE is empty: its shape is (0, 5, 6, 3)."),
        ({"x_train": images(20, 0)}, "x_train in FILE is empty: its shape is (20, 0, 6, 3)."),
        (
            {"x_train": images(19)},
            "x_train and y_train in FILE must have the same length, found 19 images and 20 labels.",
        ),
        (
            {"x_test": images(4, 7), "y_test": LABELS[:4]},
            "x_test in FILE must hold images of shape (5, 6, 3) as x_train does, found (7, 6, 3).",
        ),
        (
            {"x_train": with_value(np.nan)},
            "x_train in FILE must hold finite float32 values, found NaN or infinity in 1 of 20 images, "
            "first in image 17.",
        ),
        (
            {"x_train": with_value(-np.inf)},
            "x_train in FILE must hold finite float32 values, found NaN or infinity in 1 of 20 images, "
            "first in image 17.",
        ),
        (
            {"x_train": with_value(1e300)},  # finite in float64 only
            "x_train in FILE must hold finite float32 values, found NaN or infinity in 1 of 20 images, "
            "first in image 17.",
        ),
        (
            {"y_train": LABELS.astype(float)},
            "y_train in FILE must hold integers in shape (count,), found float64 of shape (20,).",
        ),
        (
            {"y_train": np.eye(4, dtype=int)[LABELS]},
            "y_train in FILE must hold integers in shape (count,), found int64 of shape (20, 4).",
        ),
        (
            {"y_train": np.array(3)},
            "y_train in FILE must hold integers in shape (count,), found int64 of shape ().",
        ),
        ({"y_train": LABELS[:0]}, "y_train in FILE is empty: its shape is (0,)."),
        (
            {"y_train": LABELS - 1},
            "y_train in FILE must hold labels that count classes from 0, found -1 to 2.",
        ),
        (
            {"y_train": LABELS.astype(np.uint64) + 2**63},
            "y_train in FILE must hold labels that count classes from 0, "
            "found 9223372036854775808 to 9223372036854775811.",
        ),
        (
            {"y_train": LABELS * 1000},
            "y_train in FILE must hold labels that count classes from 0, found 3000 "
            "where there are only 20 training images.",
        ),
        (
            {"y_train": np.full(20, 2)},
            "y_train in FILE must hold at least 2 different labels, found only 2.",
        ),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path, arrays, message):
    assert message_of(save(tmp_path, **arrays)) == message


def test_object_arrays_are_refused_and_run_nothing(tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=np.array([Hostile(marker)], object), y_train=LABELS, allow_pickle=True)
    assert message_of(path) == (
        "x_train in FILE cannot be read as an array of numbers: Object arrays cannot be loaded when allow_pickle=False"
    )
    assert not marker.exists()


def test_a_pickle_under_the_name_of_an_npz_is_refused_and_runs_nothing(tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "mine.npz"
    path.write_bytes(pickle.dumps(Hostile(marker)))
    assert message_of(path) == "FILE is not a valid .npz file (a zip archive made with numpy.savez)."
    assert not marker.exists()


def test_a_plain_npy_file_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", images())
    assert message_of(tmp_path / "array.npy") == "FILE is not a valid .npz file (a zip archive made with numpy.savez)."


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    assert message_of(tmp_path / "none.npz") == "FILE is not a file; expected one made with numpy.savez."
    assert message_of(tmp_path) == "FILE is not a file; expected one made with numpy.savez."


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w"):
        pass
    assert message_of(path) == "FILE lacks x_train; it holds nothing."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train", b"text")
        archive.writestr("y_train", b"text")
    assert message_of(path) == "x_train in FILE cannot be read as an array of numbers: it is not in numpy's format."


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    path = save(tmp_path)
    with zipfile.ZipFile(path) as archive:
        member = archive.read("x_train.npy")
    # As many digits more as blanks fewer: the header keeps its length.
    promised = member.replace(b"(20, 5, 6, 3), }          ", b"(20000000000, 50, 600, 3), }"[:26], 1)
    assert len(promised) == len(member) and promised != member
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", promised)
        archive.writestr("y_train.npy", promised)
    assert message_of(path).startswith("x_train in FILE cannot be read as an array of numbers: ")


def test_every_truncation_is_refused(tmp_path):
    whole = save(tmp_path, x_train=images(20, 2, 2, 1)).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        message_of(path)


def test_damage_to_the_data_is_noticed(tmp_path):
    path = save(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[2000] ^= 1  # in the middle of x_train, which the archive holds uncompressed with a checksum
    path.write_bytes(whole)
    assert message_of(path).startswith("x_train in FILE cannot be read as an array of numbers: Bad CRC-32")
