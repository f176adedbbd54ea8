"""Image classification: the digits, CIFAR-10, and a person's own arrays share one task."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from child_trainers.data.dataset import ImageData
from child_trainers.devices import FLOAT32, Compute
from child_trainers.recipes import Recipe
from child_trainers.task import Goal, Outcome, Report, Task, read_outcome
from child_trainers.whitening import WHITENING_SOURCE, whitening

if TYPE_CHECKING:
    import keras

    from child_trainers.training import DeviceData

SHAPES: dict[str, tuple[tuple[int, ...], int]] = {"digits": ((8, 8, 1), 10), "cifar10": ((32, 32, 3), 10)}


class ImageClassification(Task):
    """Trains a spec's Keras model with a recipe; the reward is the cube of its best late validation accuracy.

    Args:
        name: `digits`, `cifar10` or `npz:PATH`.
        recipe: the constants of training.
        data_dir: where CIFAR-10 lies.
        goal: another metric as the reward.
        progress: called with bytes done and bytes in all while data are downloaded.
        compute: in which precision children are trained, and whether under XLA.
    """

    floor = 0.0

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        *,
        data_dir: Path | None = None,
        goal: Goal | None = None,
        progress: Any = None,
        compute: Compute = FLOAT32,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self._data_dir = data_dir
        self._goal = goal
        self._progress = progress
        self._compute = compute
        if goal is not None:
            self.floor = None  # type: ignore[assignment]

    @functools.cached_property
    def data(self) -> ImageData:
        """The images, limited as the recipe says. Raises DataError."""
        if self.name == "digits":
            from child_trainers.data.digits import load_digits_data

            data = load_digits_data()
        elif self.name == "cifar10":
            from child_trainers.data.cifar10 import load_cifar10

            data = load_cifar10(self._data_dir, progress=self._progress)
        else:
            from child_trainers.data.npz import load_npz

            data = load_npz(Path(self.name.removeprefix("npz:")).expanduser())
        num_train = self.recipe.num_train or len(data.x_train)
        return data.limit(num_train, self.recipe.num_validation)

    @functools.cached_property
    def _device_data(self) -> DeviceData:
        from child_trainers.training import to_device

        return to_device(self.data)

    @property
    def shapes(self) -> tuple[tuple[int, ...], int]:  # type: ignore[override]
        if self.name in SHAPES:
            return SHAPES[self.name]  # known without loading anything
        return self.data.input_shape, self.data.num_classes

    def prepare(self) -> None:
        _ = self.data

    def warm_up(self) -> None:
        _ = self._device_data

    def evaluate(self, spec: Any, *, seed: int, report: Report) -> Outcome:
        from child_trainers.networks import make_network
        from child_trainers.training import train

        began = time.perf_counter()
        network = make_network(spec, *self.shapes, seed=seed, compute=self._compute)
        build = time.perf_counter() - began
        outcome = train(network, self._device_data, self.recipe, seed=seed, report=report, compute=self._compute)
        seconds = {"build": build, **outcome.seconds}
        return read_outcome(dataclasses.replace(outcome, seconds=seconds), self._goal)

    def model(self, spec: Any, weights: dict[str, Any]) -> keras.Model:
        """The child's model with its stored weights; it takes raw images, whitening is its first layer."""
        import keras

        from child_trainers.networks import set_weights

        inner = spec.build(*self.shapes)
        set_weights(inner, weights)
        image = keras.Input(self.shapes[0], name="raw_image")
        return keras.Model(image, inner(whitening(self.shapes[0])(image)), name="child")

    def source(self, spec: Any) -> str:
        """A Python file that builds the child's model from raw images, without weights."""
        return str(spec.source(*self.shapes, preprocessing=WHITENING_SOURCE))

    def validate(self, model: keras.Model) -> dict[str, float]:
        """The metrics of a model from raw images that `evaluate` stored for the child."""
        from child_trainers.training import accuracy

        return {"val_accuracy": accuracy(model, self.data.x_validation, self.data.y_validation)}

    def describe(self) -> dict[str, Any]:
        constants = dataclasses.asdict(self.recipe)
        return {"data": self.name} | constants
