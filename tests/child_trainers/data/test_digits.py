import numpy as np

from automl.child_trainers.data.digits import load_digits_data


def test_digits_are_the_1797_of_scikit_learn():
    data = load_digits_data()
    assert (data.name, data.num_classes, data.input_shape) == ("digits", 10, (8, 8, 1))
    assert (len(data.x_train), len(data.x_validation), len(data.x_test)) == (1297, 250, 250)
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == np.int32
    assert (data.x_train.min(), data.x_train.max()) == (0, 16)
    labels = np.concatenate([data.y_train, data.y_validation, data.y_test])
    # Class counts as in scikit-learn's description of the data set.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_split_the_same_way_every_time():
    # Pinned: searches compare the fingerprint of the data that they began with.
    fingerprint = "d26245da5014e2c9097a77eeb64c558cd83f8f75bee22e176f9a1fe7a3db85b0"
    assert load_digits_data().fingerprint == load_digits_data().fingerprint == fingerprint


def test_images_keep_their_labels():
    """A nearest neighbour among the training images finds 98 % of the labels; with labels shuffled it finds 10 %."""
    data = load_digits_data()
    train = data.x_train.reshape(len(data.x_train), -1).astype(np.float32)
    validation = data.x_validation.reshape(len(data.x_validation), -1).astype(np.float32)
    distances = (train**2).sum(axis=1) - 2 * validation @ train.T
    predicted = data.y_train[np.argmin(distances, axis=1)]
    assert np.mean(predicted == data.y_validation) > 0.95
