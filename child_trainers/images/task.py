"""Image classification: the digits, CIFAR-10, and the user's own arrays share one task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.child_trainers.built_in import BuiltInTask
from automl.child_trainers.data.dataset import DataError, ImageData
from automl.child_trainers.data.summary import DataSummary, describe_images
from automl.child_trainers.devices import Compute, trains_on_gpu
from automl.child_trainers.images.standardization import (
    Brightness,
    brightness_of,
    standardization,
    standardization_source,
)
from automl.child_trainers.images.xla import pays
from automl.child_trainers.outcome import Outcome, read_outcome
from automl.child_trainers.recipes import Recipe
from automl.child_trainers.task import NO_METRICS, Report, Source
from automl.search_spaces.spec import Buildable, Countable, HasSource, Trainable

if TYPE_CHECKING:
    import keras

    from automl.child_trainers.images.training import DeviceData

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {"digits": ((8, 8, 1), 10), "cifar10": ((32, 32, 3), 10)}


class ImageClassification(BuiltInTask[Recipe]):
    """Trains a spec's network with a recipe; the reward is the cube of its best late validation accuracy.

    Args:
        name: `digits`, `cifar10` or `npz:PATH`.
        last: if the recipe limits the number of training images, train on the last ones instead of the first.
        brightness: the range of the images' values, if it was measured before.
        others: the other arguments of `BuiltInTask`.
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
                f"{self.name.removeprefix('npz:')} does not hold the data that the search began with; restore them, "
                "give their path with --data npz:PATH, or start a new search with this file."
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

    def check(self, spec: object) -> None:
        self._buildable(spec)

    def _buildable(self, spec: object) -> Buildable:
        if not isinstance(spec, Buildable):
            raise ValueError(
                f"The task {self.name} trains image classifiers, and this space makes {type(spec).__name__}, which "
                "has no method build(input_shape, num_classes); choose another task or space."
            )
        return spec

    def count(self, spec: object) -> tuple[int, int] | None:
        if not isinstance(spec, Countable):
            return None
        cost = spec.count(*self.shapes)
        return cost.params, cost.flops

    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        from automl.child_trainers.images.networks import make_network
        from automl.child_trainers.images.training import batches, scope_of, train

        began = time.perf_counter()
        # For other specs `make_network` clears Keras, which is not possible within a scope.
        with scope_of(self._compute) if isinstance(spec, Trainable) else contextlib.nullcontext():
            network, compute = make_network(
                self._buildable(spec),
                *self.shapes,
                seed=seed,
                compute=self._compute_of(spec),
                may_end_in_softmax=self._behaviour.model_outputs == 1,
            )
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

    def _compute_of(self, spec: object) -> Compute:
        """How a child is trained: with XLA, if nothing else was asked for, where this makes it shorter."""
        if self._compute.xla is not None:
            return self._compute
        alone = self._compute.devices == 1 and trains_on_gpu()
        cost = self.count(spec) if alone else None
        images = self.recipe.epochs * len(self.data.x_train)
        return dataclasses.replace(self._compute, xla=cost is not None and pays(flops=cost[1], images=images))

    def has_model(self, spec: object) -> bool:
        return isinstance(spec, Buildable)

    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        """The child's model with its stored weights. It takes raw images; standardization is its first layer."""
        from automl.child_trainers.images.networks import set_weights

        inner = self._buildable(spec).build(*self.shapes)
        set_weights(inner, weights)
        return self.with_preprocessing(inner)

    def with_preprocessing(self, inner: keras.Model) -> keras.Model:
        """Puts standardization before a model, so that it takes raw images. The output is named `logits`."""
        import keras

        image = keras.Input(self.shapes[0], name="raw_image")
        logits = keras.layers.Identity(name="logits")(inner(standardization(self.shapes[0], self.brightness)(image)))
        return keras.Model(image, logits, name="child")

    def columns(self) -> str:
        if self.name == "cifar10":
            from automl.child_trainers.data.cifar10 import CLASS_NAMES

            return f"the columns are {', '.join(CLASS_NAMES)}"
        return "column k is the digit k" if self.name == "digits" else "column k is the label k"

    def source(self, spec: object, metrics: Mapping[str, Any] = NO_METRICS) -> Source | None:
        if not isinstance(spec, HasSource):
            return super().source(spec, metrics)
        text = str(spec.source(*self.shapes, preprocessing=standardization_source(self.brightness)))
        return Source(text, "a Keras model from raw images to logits, without weights, as readable source")

    def validate(self, model: Callable[[np.ndarray], Any], spec: object = None) -> dict[str, float]:
        from automl.child_trainers.images.training import accuracy

        return {self.metric: accuracy(model, self.data.x_validation, self.data.y_validation)}

    def test(self, model: Callable[[np.ndarray], Any], spec: object = None) -> dict[str, float]:
        from automl.child_trainers.images.training import accuracy

        if self.data.x_test is None or self.data.y_test is None:
            return {}
        return {"test_accuracy": accuracy(model, self.data.x_test, self.data.y_test)}

    def same(self, found: float, stored: float) -> bool:
        # Validation in training folds normalization into convolutions. By rounding, two images may change their class.
        return abs(found - stored) <= 2.5 / len(self.data.x_validation)
