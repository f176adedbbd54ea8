"""Image classification: the digits, CIFAR-10, and a person's own arrays share one task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.child_trainers.built_in import BuiltInTask
from automl.child_trainers.data.dataset import DataError, ImageData
from automl.child_trainers.data.summary import DataSummary, describe_images
from automl.child_trainers.images.standardization import Brightness, brightness_of, whitening, whitening_source
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.task import Outcome, Report, read_outcome

if TYPE_CHECKING:
    import keras

    from automl.child_trainers.images.training import DeviceData

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {"digits": ((8, 8, 1), 10), "cifar10": ((32, 32, 3), 10)}


class ImageClassification(BuiltInTask[Recipe]):
    """Trains a spec's network with a recipe; the reward is the cube of its best late validation accuracy.

    Args:
        name: `digits`, `cifar10` or `npz:PATH`.
        last: train on the last images where the recipe limits them, instead of the first.
        brightness: that of the images, if it was measured before.
        others: see `BuiltInTask`.
    """

    recipe_kind = Recipe
    metric = "val_accuracy"
    reward_words = "cube of the validation accuracy"
    maximize = True
    metrics = ("val_accuracy", "loss")
    fixed_options = ("num_validation",)

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        *,
        last: bool = False,
        brightness: Sequence[float] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(name, recipe, **others)
        self._last = last
        self._measured = None if brightness is None else Brightness(*brightness)

    @functools.cached_property
    def data(self) -> ImageData:
        data = self._whole
        if self._expected is not None and self._expected != data.fingerprint:
            raise DataError(
                f"{self.name.removeprefix('npz:')} does not hold the data that the search began with; put these back, "
                "say where they lie with --data npz:PATH, or start a new search with this file."
            )
        return data.limit(self.recipe.num_train or len(data.x_train), self.recipe.num_validation, last=self._last)

    @property
    def fingerprint(self) -> str | None:  # type: ignore[override]
        # CIFAR-10 is checked against its publishers' checksums, and the digits come with scikit-learn.
        return self._whole.fingerprint if self.name.startswith("npz:") else None

    @functools.cached_property
    def _whole(self) -> ImageData:
        if self.name == "digits":
            from automl.child_trainers.data.digits import load_digits_data

            data = load_digits_data()
        elif self.name == "cifar10":
            from automl.child_trainers.data.cifar10 import load_cifar10

            data = load_cifar10(self._data_dir, download=self._download, progress=self._progress)
        else:
            from automl.child_trainers.data.npz import load_npz

            path = Path(self.name.removeprefix("npz:")).expanduser()
            self._refuse_missing(path)
            data = load_npz(path, stratified=self._behaviour.data_split > 1)
        return data

    @functools.cached_property
    def device_data(self) -> DeviceData:
        from automl.child_trainers.images.training import to_device

        return to_device(self.data, self.brightness)

    @functools.cached_property
    def brightness(self) -> Brightness | None:  # type: ignore[override]
        """The range of a file's values; None if they are not rescaled. It is measured once, on all training images, and
        stored with the search."""
        if not self.name.startswith("npz:") or self._behaviour.standardization == 1:
            return None
        return self._measured or brightness_of(self._whole.x_train)

    @property
    def shapes(self) -> tuple[tuple[int, ...], int]:
        """The shape of an image and the number of classes."""
        if self.name in SHAPES:
            return SHAPES[self.name]  # known without loading anything
        if self._reading is not None:
            return tuple(self._reading["input_shape"]), self._reading["num_classes"]
        return self.data.input_shape, self.data.num_classes

    def reading(self) -> dict[str, Any] | None:
        if self.name in SHAPES:
            return None
        input_shape, num_classes = self.shapes
        return {"input_shape": list(input_shape), "num_classes": num_classes}

    def data_summary(self) -> DataSummary:
        return describe_images(self._whole, self.data)

    def check(self, spec: Any) -> None:
        if not hasattr(spec, "build"):
            raise ValueError(
                f"The task {self.name} trains image classifiers, and this space makes {type(spec).__name__}, which "
                "has no method build(input_shape, num_classes); choose another task or space."
            )

    def count(self, spec: Any) -> tuple[int, int] | None:
        if not hasattr(spec, "count"):
            return None
        cost = spec.count(*self.shapes)
        return cost.params, cost.flops

    def evaluate(self, spec: Any, *, seed: int, report: Report) -> Outcome:
        from automl.child_trainers.images.networks import make_network
        from automl.child_trainers.images.training import batches, scope_of, train

        began = time.perf_counter()
        # Keras is cleared before it builds a model, which cannot be done within a scope.
        with scope_of(self._compute) if hasattr(spec, "network") else contextlib.nullcontext():
            network, compute = make_network(spec, *self.shapes, seed=seed, compute=self._compute)
        _, steps = batches(len(self.data.x_train), self.recipe.batch_size)
        optimizer = self._optimizer_of(spec, steps, seed)
        build = time.perf_counter() - began
        outcome = self._result(
            lambda: train(
                network, self.device_data, self.recipe, seed=seed, report=report, compute=compute, optimizer=optimizer
            ),
            by_own_rule=optimizer is not None,
            worst=0.0,
        )
        seconds = {"build": build, **outcome.seconds}
        return read_outcome(dataclasses.replace(outcome, seconds=seconds), self._goal)

    def model(self, spec: Any, weights: dict[str, Any]) -> keras.Model:
        """The child's model with its stored weights; it takes raw images, whitening is its first layer."""
        from automl.child_trainers.images.networks import set_weights

        inner = spec.build(*self.shapes)
        set_weights(inner, weights)
        return self.with_preprocessing(inner)

    def with_preprocessing(self, inner: keras.Model) -> keras.Model:
        """A model from raw images, made from one that takes whitened images; its output is named `logits`."""
        import keras

        image = keras.Input(self.shapes[0], name="raw_image")
        logits = keras.layers.Identity(name="logits")(inner(whitening(self.shapes[0], self.brightness)(image)))
        return keras.Model(image, logits, name="child")

    def columns(self) -> str:
        """The meaning of the columns of the logits, for the user."""
        if self.name == "cifar10":
            from automl.child_trainers.data.cifar10 import CLASS_NAMES

            return f"the columns are {', '.join(CLASS_NAMES)}"
        return "column k is the digit k" if self.name == "digits" else "column k is the label k"

    def source(self, spec: Any) -> str:
        """A Python file that builds the child's model from raw images, without weights."""
        return str(spec.source(*self.shapes, preprocessing=whitening_source(self.brightness)))

    def validate(self, model: Callable[[np.ndarray], Any], spec: Any = None) -> dict[str, float]:
        """The metrics that `evaluate` stored for the child, of any function from raw images to logits."""
        from automl.child_trainers.images.training import accuracy

        return {self.metric: accuracy(model, self.data.x_validation, self.data.y_validation)}

    def test(self, model: Callable[[np.ndarray], Any], spec: Any = None) -> dict[str, float]:
        """The metrics on test images, which no search ever reads; none where there are none."""
        from automl.child_trainers.images.training import accuracy

        if self.data.x_test is None or self.data.y_test is None:
            return {}
        return {"test_accuracy": accuracy(model, self.data.x_test, self.data.y_test)}

    def same(self, found: float, stored: float) -> bool:
        """Whether an exported model has the accuracy that its child had."""
        # Training folds normalization into convolutions to validate; two images may fall to the other side by that.
        return abs(found - stored) <= 2.5 / len(self.data.x_validation)
