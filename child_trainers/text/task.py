"""Language modeling: the Penn Treebank, Python's own help, and the user's own text share one task."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.child_trainers.built_in import BuiltInTask
from automl.child_trainers.data.dataset import DataError
from automl.child_trainers.data.summary import DataSummary, describe_text
from automl.child_trainers.data.text import TextData
from automl.child_trainers.devices import FLOAT32, Compute
from automl.child_trainers.outcome import Outcome, read_outcome
from automl.child_trainers.recipes import LanguageRecipe
from automl.child_trainers.task import NO_METRICS, Report, Source, fresh_start
from automl.child_trainers.text.sizes import num_flops, num_parameters, units_within
from automl.search_spaces.spec import Cell, HasSource, KerasCell

if TYPE_CHECKING:
    import keras

    from automl.child_trainers.text.training import DeviceText

CHUNK = 500  # tokens that an exported model reads at once
TextModel = Callable[[list[Any]], Sequence[Any]]  # words and states to logits and states; see `keras_model.build`


class LanguageModeling(BuiltInTask[LanguageRecipe]):
    """Trains a language model of a spec's cell; the reward is 80 / (validation perplexity)^2.

    Args:
        name: `ptb`, `pydoc` or `text:PATH`.
        others: the other arguments of `BuiltInTask`.
    """

    recipe_kind = LanguageRecipe
    metric = "val_perplexity"
    reward_words = "80 / (validation perplexity)²"
    maximize = False
    reading_options = ("vocabulary_size", "level")
    fixed_options = ("num_validation", *reading_options)
    reads_words = True

    def __init__(self, name: str, recipe: LanguageRecipe, *, compute: Compute = FLOAT32, **others: Any) -> None:
        if compute.precision == "float16":
            raise ValueError("Language models are trained in float32 or bfloat16; choose one of them with --precision.")
        if compute.devices > 1:
            raise ValueError("A language model is trained on one GPU; drop --gpus-per-child.")
        super().__init__(name, recipe, compute=compute, **others)

    @property
    def metrics(self) -> tuple[str, ...]:
        bits = ("val_bits_per_character",) if self.recipe.level == "character" else ()
        return (self.metric, *bits, "loss")

    @functools.cached_property
    def data(self) -> TextData:
        text, recipe = self._whole, self.recipe
        if self._expected is not None and self._expected != text.fingerprint:
            there = ", give its path with --data text:PATH" if self.name.startswith("text:") else ""
            raise DataError(
                f"{self.name.removeprefix('text:')} is not the text that the search began with, or is read with "
                f"another vocabulary; restore the old one{there}, or start a new search with this one."
            )
        text = text.limit(recipe.num_train, recipe.num_validation)
        needed = recipe.batch_size * (recipe.unroll + 1)
        if len(text.train) < needed or len(text.validation) < 2:
            raise DataError(
                f"{self.name.removeprefix('text:')} has {len(text.train):,} {text.level}s to train on and "
                f"{len(text.validation):,} to validate; {recipe.batch_size} streams of {recipe.unroll + 1} need "
                f"{needed:,}. Take a longer text, or lower task.batch_size or task.unroll."
            )
        return text

    @property
    def fingerprint(self) -> str | None:  # type: ignore[override]
        # The Penn Treebank is checked against checksums; Python's help differs between releases.
        return None if self.name == "ptb" else self._whole.fingerprint

    @functools.cached_property
    def _whole(self) -> TextData:
        level, size = self.recipe.level, self.recipe.vocabulary_size
        if self.name == "ptb":
            from automl.child_trainers.data.ptb import load_ptb

            return load_ptb(
                self._data_dir,
                level=level,
                vocabulary_size=size,
                progress=self._progress,
                download=self._download,
            )
        if self.name == "pydoc":
            from automl.child_trainers.data.pydoc_topics import load_pydoc

            return load_pydoc(level=level, vocabulary_size=size)
        from automl.child_trainers.data.text import load_text

        self._refuse_missing(Path(self.name.removeprefix("text:")).expanduser())
        return load_text(Path(self.name.removeprefix("text:")).expanduser(), level=level, vocabulary_size=size)

    @functools.cached_property
    def device_data(self) -> DeviceText:
        from automl.child_trainers.text.training import to_device

        return to_device(self.data, self.recipe.batch_size)

    def reading(self) -> dict[str, Any] | None:
        if self.name == "ptb":
            return None
        options = {name: getattr(self.recipe, name) for name in self.reading_options}
        return {"options": options, "vocabulary": list(self.data.vocabulary)}

    @functools.cached_property
    def _model_text(self) -> TextData:
        """A text with the vocabulary that a model needs: the one stored with the search, or else the whole data."""
        options = {name: getattr(self.recipe, name) for name in self.reading_options}
        if self._reading is None or self._reading["options"] != options:
            return self.data
        empty = np.empty(0, np.int32)
        return TextData(
            name=Path(self.name).name,  # the name that reading the file gives it
            train=empty,
            validation=empty,
            test=empty,
            vocabulary=tuple(self._reading["vocabulary"]),
            level=self.recipe.level,
        )

    def data_summary(self) -> DataSummary:
        return describe_text(self._whole, self.data)

    def check(self, spec: object) -> None:
        units_within(self._cell(spec), len(self.data.vocabulary), self.recipe)

    def _cell(self, spec: object) -> Cell:
        if not isinstance(spec, Cell):
            raise ValueError(
                f"The task {self.name} trains recurrent cells, and this space makes {type(spec).__name__}; choose "
                "--space recurrent-cell, --space joint with the preset cells, or a task for it."
            )
        return spec

    def count(self, spec: object) -> tuple[int, int] | None:
        types = len(self.data.vocabulary)
        cell, units = self._cell(spec), self.units(spec)
        return num_parameters(cell, types, units, self.recipe), num_flops(cell, types, units, self.recipe)

    def evaluate(self, spec: object, *, seed: int, report: Report) -> Outcome:
        from automl.child_trainers.text.model import LanguageModel
        from automl.child_trainers.text.training import steps_per_epoch, train_language_model

        began = time.perf_counter()
        fresh_start(seed, keras=False)
        network = LanguageModel(
            self._cell(spec),
            len(self.data.vocabulary),
            self.units(spec),
            self.recipe,
            seed=seed,
            precision=self._compute.precision,
        )
        optimizer = self._optimizer_of(spec, steps_per_epoch(self.device_data, self.recipe), seed)
        xla = bool(self._compute.xla)  # it takes a minute to compile a recurrence, so it is used on request only
        build = time.perf_counter() - began
        outcome = self._result(
            lambda: train_language_model(
                network, self.device_data, self.recipe, seed=seed, report=report, xla=xla, optimizer=optimizer
            ),
            by_own_rule=optimizer is not None,
            worst=float(len(self.data.vocabulary)),  # the perplexity of a uniform guess
        )
        metrics = {**outcome.metrics, "precision": self._compute.precision, "xla": xla}
        seconds = {"build": build, **outcome.seconds}
        return read_outcome(dataclasses.replace(outcome, metrics=metrics, seconds=seconds), self._goal)

    def has_model(self, spec: object) -> bool:
        return isinstance(spec, KerasCell)

    def model(self, spec: object, weights: Mapping[str, np.ndarray]) -> keras.Model:
        """The child as a Keras model that reads words; see `keras_model.build`."""
        from automl.child_trainers.text.keras_model import build

        if not isinstance(spec, KerasCell):
            return super().model(spec, weights)
        return build(spec, self._model_text, self.units(spec), self.recipe, weights)

    def columns(self) -> str:
        return f"the columns are {self.recipe.level}s"

    def source(self, spec: object, metrics: Mapping[str, Any] = NO_METRICS) -> Source | None:
        from automl.child_trainers.text.keras_model import source

        if not isinstance(spec, HasSource):
            return super().source(spec, metrics)
        text = source(self._cell(spec), spec.source(), self._model_text, self.units(spec), self.recipe)
        what = "the cell as a Keras layer and a language model of it, to logits, without weights, as readable source"
        return Source(text, what)

    def validate(self, model: TextModel, spec: object) -> dict[str, float]:
        """See `Task.validate`. Raises DivergedError if the perplexity overflows."""
        return {self.metric: self._perplexity(model, spec, "validation")}

    def test(self, model: TextModel, spec: object) -> dict[str, float]:
        """The perplexity of the test text, which no search ever reads. Raises DivergedError as `validate` does."""
        return {"test_perplexity": self._perplexity(model, spec, "test")}

    def units(self, spec: object) -> int:
        """The units of every layer; see `units_within`."""
        return units_within(self._cell(spec), len(self._model_text.vocabulary), self.recipe)

    def _perplexity(self, model: TextModel, spec: object, part: str) -> float:
        import tensorflow as tf

        from automl.child_trainers.text.training import perplexity_of

        tokens = self.data.validation if part == "validation" else self.data.test
        words = tf.gather(tf.constant(self.data.vocabulary), tokens)[tf.newaxis]
        states: list[Any] = [tf.zeros((1, self.units(spec)))] * (2 * self.recipe.layers)
        signature = [tf.TensorSpec((1, None), tf.string), *(tf.TensorSpec(state.shape) for state in states)]
        # Compiled, because an eager model runs token by token.
        read = tf.function(lambda *inputs: model(list(inputs)), autograph=False).get_concrete_function(*signature)
        total = 0.0
        for first in range(0, len(tokens) - 1, CHUNK):
            last = min(first + CHUNK, len(tokens) - 1)
            logits, *states = read(words[:, first:last], *states)
            total += _loss(np.asarray(logits)[0], tokens[first + 1 : last + 1])
        return perplexity_of(total / (len(tokens) - 1), part)


def _loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """The sum of the cross-entropies in nats, (tokens, types) against (tokens,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    return float((log_sums - shifted[np.arange(len(targets)), targets]).sum())
