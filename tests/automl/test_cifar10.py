"""A short search on the real CIFAR-10, if the data are there: search, resume, export, and loading of the model."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import pytest
from command_line import run_automl

from automl.child_trainers.data.cifar10 import LAYOUTS, load_cifar10
from automl.child_trainers.images.training import accuracy

DATA = os.environ.get("AUTOML_DATA")
PRESENT = DATA is not None and any((Path(DATA) / layout.folder).is_dir() for layout in LAYOUTS)
SMALL = (
    *("--fix", "depth=3", "--fix", "layer*/num_filters=8", "--fix", "layer*/filter_*=3"),
    *("--set", "task.epochs=1", "--set", "task.num_train=256", "--set", "task.num_validation=256"),
)

pytestmark = [
    pytest.mark.skipif(not PRESENT, reason="CIFAR-10 is not in AUTOML_DATA"),
    # Keras 3 saves variables through np.array of an object whose __array__ takes no `copy`.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def test_search_resume_and_export(automl, folder):
    assert DATA is not None
    arguments = ("search", "photos", "--task", "cifar10", "--data-dir", DATA, "--controller", "random", *SMALL)
    ran = run_automl(*arguments, "--children", "2", "--workers", "0", folder=folder)
    assert ran.code == 0 and ran.err == "", ran
    assert "Each child: data cifar10, epochs 1," in ran.out  # so the result differs from a full training
    assert "Done: 2 children trained." in ran.out
    ran = run_automl("resume", "photos", "--children", "3", folder=folder)
    assert ran.code == 0 and "Done: 3 children trained." in ran.out, ran
    children = automl("top", "photos", "--json").json
    assert len(children) == 3
    assert all(child["reward"] == pytest.approx(child["metrics"]["val_accuracy"] ** 3) for child in children)
    ran = automl("export", "photos", "--format", "keras", "--to", "best.keras")
    assert ran.code == 0, ran.err
    stored = children[0]["metrics"]["val_accuracy"]
    assert f"validation accuracy {stored:.4f}, as in the search ({stored:.4f})" in ran.out
    model = keras.models.load_model(folder / "best.keras")
    data = load_cifar10(Path(DATA), download=False).limit(256, 256)
    assert accuracy(model, data.x_validation, data.y_validation) == pytest.approx(stored, abs=1e-3)
