"""What is said of data: one line, and a sentence for each thing that may be a mistake."""

import numpy as np
import pytest

from automl.child_trainers.data.dataset import ImageData
from automl.child_trainers.data.digits import load_digits_data
from automl.child_trainers.data.npz import load_npz
from automl.child_trainers.data.pydoc_topics import load_pydoc
from automl.child_trainers.data.summary import describe_images, describe_text
from automl.child_trainers.data.text import load_text, make_text


def images(shape=(8, 8, 1), classes=4, per_class=12, **changes):
    """Random images with balanced labels: nothing doubtful."""
    generator = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", per_class), ("validation", 3), ("test", 3)):
        y = np.repeat(np.arange(classes, dtype=np.int32), count)
        parts[f"y_{part}"] = y
        parts[f"x_{part}"] = generator.integers(0, 256, (len(y), *shape)).astype(np.uint8)
    parts |= changes
    for part in ("train", "validation", "test"):  # as many images as labels
        parts[f"x_{part}"] = np.resize(parts[f"x_{part}"], (len(parts[f"y_{part}"]), *parts[f"x_{part}"].shape[1:]))
    labels = [parts[f"y_{part}"].max() for part in ("train", "validation", "test")]
    return ImageData(name="t", num_classes=int(max(labels)) + 1, **parts)


def warnings_of(data, used=None):
    return describe_images(data, used or data).warnings


def labels(*counts, first=0):
    """So many of each class."""
    return np.repeat(np.arange(first, first + len(counts), dtype=np.int32), counts)


def test_the_line_of_images():
    data = load_digits_data()
    summary = describe_images(data, data.limit(300))
    assert summary.line == (
        "300 of 1,297 training, 250 validation and 250 test images of 8 x 8 x 1 (height x width x channels), uint8 "
        "from 0 to 16; 10 classes, the largest 12.7% of the training images"
    )
    assert summary.warnings == ()


def test_the_line_of_a_file_s_images(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 6, 7)) / 1000
    x[0, 0, 0], x[1, 0, 0] = -1.5, 2.25
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(40) % 2, x_validation=x, y_validation=np.arange(40) % 2)
    data = load_npz(tmp_path / "a.npz")
    assert describe_images(data, data).line == (
        "40 training and 40 validation images of 6 x 7 x 1 (height x width x channels), float32 from -1.5 to 2.25; "
        "2 classes, the largest 50.0% of the training images"
    )


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (3, 8, 12), (4, 5, 5)])
def test_channels_first_are_doubtful(shape):
    height, width, channels = shape
    assert warnings_of(images(shape)) == (
        f"Images of shape {shape} are read as {height} high, {width} wide, with {channels} channels. If the channels "
        "come first, move them to the end: x.transpose(0, 2, 3, 1).",
    )


@pytest.mark.parametrize("shape", [(28, 28, 1), (16, 16, 3), (8, 8, 4), (3, 3, 3), (1, 100, 2), (12, 12, 12)])
def test_other_shapes_are_not(shape):
    assert warnings_of(images(shape)) == ()


def test_labels_that_do_not_begin_at_0():
    changes = {f"y_{part}": labels(*[5] * 10, first=1) for part in ("train", "validation", "test")}
    assert warnings_of(images(**changes)) == (
        "Labels run from 1 to 10, so class 0 has no images and the network has outputs that nothing uses; let them "
        "count from 0: y - 1.",
    )


def test_labels_with_gaps():
    even = {f"y_{part}": 2 * labels(*[5] * 8) for part in ("train", "validation", "test")}
    assert warnings_of(images(**even)) == (
        "Labels have gaps: no image is of classes 1, 3, 5, 7, 9, …, and the network has outputs that nothing uses; "
        "number the classes 0, 1, 2, … without gaps.",
    )


def test_labels_that_training_lacks():
    assert warnings_of(images(y_validation=labels(3, 3, 3, 3, 1))) == (
        "Class 4 occurs in the validation or test images and not in the training images, so no network can learn it.",
    )
    assert warnings_of(images(y_test=labels(3, 3, 3, 3, 1, 1)))[0].startswith(
        "Classes 4, 5 occur in the validation or test"
    )


def test_a_class_of_one_image_and_a_class_of_nearly_all():
    assert warnings_of(images(y_train=labels(9, 9, 9, 1))) == ("Class 3 occurs in only one training image.",)
    assert warnings_of(images(y_train=labels(95, 2, 2, 2))) == (
        "94.1% of the training images are of class 0: a network that always predicts this class has that accuracy.",
    )
    assert warnings_of(images(y_train=labels(90, 4, 3, 3))) == ()


def test_classes_that_a_limit_leaves_out():
    data = images()
    assert warnings_of(data, data.limit(24)) == (
        "Classes 2, 3 occur in the training images, but not among the 24 that task.num_train keeps; raise it, or take "
        "all with --set task.num_train=null.",
    )


def test_a_validation_set_of_one_class():
    assert warnings_of(images(y_validation=labels(4))) == (
        "All validation images are of class 0, so any network may seem perfect.",
    )


def test_values_that_tell_nothing():
    equal = np.full((48, 8, 8, 1), 7, np.uint8)
    assert warnings_of(images(x_train=equal)) == (
        "All training images are equal, every pixel is 7: there is nothing to learn from.",
    )
    opaque = images((8, 8, 4)).x_train
    opaque[..., 3] = 255
    assert warnings_of(images((8, 8, 4), x_train=opaque)) == (
        "Channel 3 has one value, 255, in all training images, and gives no information.",
    )


def test_the_line_of_a_text():
    parts = {"train": ["a", "a", "b", "c"] * 4, "validation": ["a", "d", "b", "a"], "test": ["a"]}
    data = make_text("t", parts, vocabulary_size=3)
    summary = describe_text(data, data.limit(8, None))
    assert summary.line == (
        "8 of 16 training, 4 validation and 1 test words; 2 different ones known, 25.0% unknown in training and 25.0% "
        "in validation"
    )
    assert summary.warnings == ()
    characters = make_text("t", {part: list("abab") for part in ("train", "validation", "test")}, level="character")
    assert describe_text(characters, characters).line == (
        "4 training, 4 validation and 4 test characters; 2 different ones known, 0.0% unknown in training and 0.0% in "
        "validation"
    )


def test_a_text_of_unknown_words():
    data = make_text("t", {"train": ["a", "b"], "validation": ["c", "d", "a"], "test": ["a"]})
    assert describe_text(data, data).warnings == (
        "66.7% of the validation words are unknown, which is easy to predict: raise task.vocabulary_size, or read the "
        "text as --set task.level=character.",
    )


def read(tmp_path, text, level="word"):
    path = tmp_path / "mine.txt"
    path.write_text(text, encoding="utf-8")
    data = load_text(path, level=level, vocabulary_size=None)
    return describe_text(data, data).warnings


def test_a_text_without_spaces_read_as_words(tmp_path):
    chinese = "机器学习是人工智能的一个分支\n" * 20
    assert read(tmp_path, chinese) == (
        "Words are separated by spaces, and those of mine.txt have 14 characters on average; read a text "
        "without spaces as --set task.level=character.",
    )
    assert read(tmp_path, "我们 在 学习 机器 学习 的 方法\n" * 20) == ()  # of which somebody has parted the words
    assert read(tmp_path, chinese, level="character") == ()
    assert len(read(tmp_path, "ภาษาไทยไม่เว้น วรรค\n" * 20)) == 1
    assert len(read(tmp_path, "acgtacgtacgtaacctggtttacg\n" * 20)) == 1
    assert read(tmp_path, "Donaudampfschifffahrtsgesellschaft ist ein langes Wort, andere sind kurz\n" * 20) == ()


def test_the_texts_that_come_along_are_not_doubtful():
    data = load_pydoc(level="word", vocabulary_size=2000)
    assert describe_text(data, data.limit(50_000, 5_000)).warnings == ()
