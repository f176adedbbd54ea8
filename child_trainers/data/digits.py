"""Handwritten digits, 8 by 8 pixels: small enough to train a child in seconds, and part of scikit-learn."""

from __future__ import annotations

import numpy as np

from automl.child_trainers.data.dataset import ImageData, split

NUM_VALIDATION = 250
NUM_TEST = 250


def load_digits_data() -> ImageData:
    """Loads 1,797 scanned digits: 1,297 training, 250 validation and 250 test images. The split is always the same.

    Images are uint8 (count, 8, 8, 1) with values 0 to 16: the number of inked pixels in a block of 4 by 4.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI repository (1998), its test part.
    """
    # Imported here: importing scikit-learn takes about a second, and every command imports this module.
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images.astype(np.uint8)[..., np.newaxis]
    y = digits.target.astype(np.int32)
    x_train, y_train, x_held_out, y_held_out = split(x, y, NUM_VALIDATION + NUM_TEST, seed=0)
    return ImageData(
        name="digits",
        x_train=x_train,
        y_train=y_train,
        x_validation=x_held_out[:NUM_VALIDATION],
        y_validation=y_held_out[:NUM_VALIDATION],
        x_test=x_held_out[NUM_VALIDATION:],
        y_test=y_held_out[NUM_VALIDATION:],
        num_classes=10,
    )
