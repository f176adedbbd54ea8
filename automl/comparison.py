"""Compares optimizers on one network: a sweep of learning rates for each, then several seeds at the best rate."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automl.child_trainers.built_in import BuiltInTask
from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.devices import start_tensorflow
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.recipes import RATES
from automl.child_trainers.registry import NETWORK_TASKS, kind_of
from automl.child_trainers.update_rules.trial import (
    LSTM_NETWORK,
    Trial,
    default_recipe,
    kind_of_task,
    make_task,
    meaning_of,
    network_of,
    run,
)
from automl.child_trainers.user_files import UserFile
from automl.processes import process_pool
from automl.search_spaces.names import validate_choice
from automl.wording import counted

Progress = Callable[[Trial, Mapping[str, Any], int, int], None]  # a trial, its result, trials done, trials in all

UNUSED = {  # constants of recipes that the optimizer replaces
    "learning_rate": "each optimizer has the best rate of its own sweep (--rates)",
    "momentum": "an optimizer has its own; use the optimizer momentum",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The settings of a comparison.

    Attributes:
        optimizers: names, as `update_rules.trial.make_optimizer` takes them.
        network: for images a name or `FILE.py:FUNCTION`, for text `lstm`; None is `small` for images.
        options: of the task's recipe, such as `epochs`, for the trainings at the best rate.
        rates: learning rates of the sweep.
        sweep_epochs: epochs of a training in the sweep.
        seeds: trainings of each optimizer at its best rate.
        unseen: train on the last images, which a search on the first ones has not seen.
    """

    optimizers: tuple[str, ...]
    task: str = "digits"
    network: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rates: tuple[float, ...] = RATES
    sweep_epochs: int = 1
    seeds: int = 3
    data_dir: str | None = None
    unseen: bool = False

    def check(self) -> None:
        """Checks the settings and loads the data. Raises ValueError."""
        validate_choice("task", kind_of(self.task), NETWORK_TASKS)
        fields = dataclasses.fields(kind_of_task(self.task).recipe_kind)
        for option in self.options:
            if option in UNUSED:
                raise ValueError(f"{option} cannot be set here: {UNUSED[option]}.")
            validate_choice("task option", option, [field.name for field in fields if field.name not in UNUSED])
        if len(set(self.optimizers)) < len(self.optimizers):
            raise ValueError("An optimizer is named twice; name each once.")
        if self.seeds < 1 or self.sweep_epochs < 1:
            raise ValueError(f"--seeds is {self.seeds} and --sweep-epochs {self.sweep_epochs}; both must be 1 or more.")
        if not self.rates or not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise ValueError(f"The rates are {self.rates}; they must be numbers above 0.")
        if self.unseen and not self._of_images:
            raise ValueError(f"--unseen is for images, and {self.task} is text; leave it out.")
        if self._of_images:
            network_of(self.network or "small")
        elif self.network not in (None, LSTM_NETWORK):
            raise ValueError(f"Optimizers are compared on text with the network lstm, not {self.network!r}.")
        self._task.prepare()

    def data_summary(self) -> DataSummary | None:
        """A summary of the data, or None if the task has none."""
        return self._task.data_summary()

    @property
    def title(self) -> str:
        """The network, the data and the length of the training, in one line."""
        epochs, swept = counted(self._recipe["epochs"], "epoch"), counted(self.sweep_epochs, "epoch")
        part = " (its last images)" if self.unseen else ""
        trained = f"{epochs} at the best of {counted(len(self.rates), 'rate')} (each tried for {swept})"
        return f"Network {self._network} on {self.task}{part}: {trained}, {counted(self.seeds, 'seed')}"

    @property
    def metric(self) -> str:
        return kind_of_task(self.task).metric

    @property
    def maximize(self) -> bool:
        return kind_of_task(self.task).maximize

    def sweep(self) -> list[Trial]:
        return [self._trial(name, rate, 0, self.sweep_epochs) for name in self.optimizers for rate in self.rates]

    def trainings(self, best: Mapping[str, float]) -> list[Trial]:
        """The trainings at the best rates, given by optimizer."""
        return [self._trial(name, rate, seed, None) for seed in range(self.seeds) for name, rate in best.items()]

    def best_rates(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """The best rate of each optimizer's sweep; optimizers that diverged at every rate are missing."""
        best: dict[str, tuple[float, float]] = {}
        for trial in self.sweep():
            value = results[key_of(trial)].get("best")
            if value is None or not math.isfinite(value):
                continue
            score = value if self.maximize else -value
            if trial.optimizer not in best or score > best[trial.optimizer][0]:
                best[trial.optimizer] = (score, trial.rate)
        return {name: rate for name, (_, rate) in best.items()}

    @property
    def _of_images(self) -> bool:
        return issubclass(kind_of_task(self.task), ImageClassification)

    def _trial(self, optimizer: str, rate: float, seed: int, epochs: int | None) -> Trial:
        recipe = self._recipe if epochs is None else self._recipe | {"epochs": epochs}
        return Trial(
            self.task,
            recipe,
            self._network,
            optimizer,
            rate,
            seed,
            data_dir=self.data_dir,
            unseen=self.unseen,
            tested=recipe == self._recipe,  # a sweep only chooses a rate
            fingerprints=self._fingerprints + meaning_of(optimizer),
        )

    @property
    def _network(self) -> str:
        return self.network or ("small" if self._of_images else LSTM_NETWORK)

    @functools.cached_property
    def _recipe(self) -> dict[str, Any]:
        return default_recipe(self.task) | dict(self.options)

    @functools.cached_property
    def _task(self) -> BuiltInTask[Any]:
        return make_task(self.task, self._recipe, data_dir=self.data_dir, unseen=self.unseen)

    @functools.cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        hashes = []
        if self.network is not None and UserFile.is_reference(self.network):
            hashes.append(UserFile.read(self.network).sha256)
        if (of_data := self._task.fingerprint) is not None:
            hashes.append(of_data)
        return tuple(hashes)


@dataclasses.dataclass(frozen=True)
class Row:
    """One optimizer's result.

    Attributes:
        rate: its best rate; None if it diverged at every rate.
        values: the best validation metric of each seed; None if the training diverged.
        tests: the metric of the same weights on the test data.
        curves: the validation metric of every epoch, one list for each seed.
    """

    optimizer: str
    rate: float | None
    values: list[float | None]
    tests: list[float | None]
    curves: list[list[float]]


def compare(comparison: Comparison, path: Path, *, workers: int, progress: Progress) -> list[Row]:
    """Runs the trials that are not in the file yet and adds their results to it, so that a comparison can be resumed.

    Args:
        path: a JSON file of this comparison, or a new one.

    Returns:
        One row per optimizer, best first.

    Raises:
        ValueError: the file is not one of a comparison.
    """
    results = load(path)
    with process_pool(workers, start_tensorflow) as pool:
        trials = comparison.sweep()
        _train(pool, trials, results, path, progress)
        best = comparison.best_rates(results)
        trainings = comparison.trainings(best)
        _train(pool, trainings, results, path, progress)
    rows = []
    for name in comparison.optimizers:
        own = [results[key_of(trial)] for trial in trainings if trial.optimizer == name]
        tests = [next((v for k, v in result.items() if k.startswith("test_")), None) for result in own]
        rows.append(
            Row(
                name, best.get(name), [result.get("best") for result in own], tests, [result["curve"] for result in own]
            )
        )
    worst = -math.inf if comparison.maximize else math.inf
    return sorted(rows, key=lambda row: _mean(row.values, worst), reverse=comparison.maximize)


def load(path: Path) -> dict[str, dict[str, Any]]:
    """The results of earlier runs, by `key_of` their trial; none if the file does not exist. Raises ValueError."""
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["trials"]
        return {key: dict(result) for key, result in results.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a comparison of optimizers; name another file.") from None


def key_of(trial: Trial) -> str:
    """A text of all that a trial's result depends on; the path of its data is left out."""
    fields = dataclasses.asdict(dataclasses.replace(trial, recipe=dict(sorted(trial.recipe.items())), data_dir=None))
    return json.dumps({name: value for name, value in fields.items() if name != "data_dir"}, sort_keys=True)


def plot(comparison: Comparison, rows: Sequence[Row], path: Path) -> None:
    """Plots the mean curve of every optimizer, with the range of its seeds. Call `check_plot` first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        length = max((len(curve) for curve in row.curves), default=0)
        whole = np.array([curve for curve in row.curves if len(curve) == length])
        if length == 0:
            continue
        epochs = np.arange(1, length + 1)
        (line,) = axes.plot(
            epochs, whole.mean(axis=0), marker="o", markersize=3, label=f"{row.optimizer}, rate {row.rate:g}"
        )
        axes.fill_between(epochs, whole.min(axis=0), whole.max(axis=0), color=line.get_color(), alpha=0.15)
    if not comparison.maximize:
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel=comparison.metric.replace("val_", "validation "), title=comparison.title)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)


def _mean(values: Sequence[float | None], worst: float) -> float:
    return worst if not values or None in values else float(np.mean([value for value in values if value is not None]))


def _train(
    pool: concurrent.futures.Executor,
    trials: Iterable[Trial],
    results: dict[str, dict[str, Any]],
    path: Path,
    progress: Progress,
) -> None:
    wanted = list(trials)
    running = {pool.submit(run, trial): trial for trial in wanted if key_of(trial) not in results}
    done = len(wanted) - len(running)
    try:
        for future in concurrent.futures.as_completed(running):
            trial = running[future]
            results[key_of(trial)] = future.result()
            done += 1
            _save(results, path)
            progress(trial, results[key_of(trial)], done, len(wanted))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _save(results: Mapping[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps({"trials": results}, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
