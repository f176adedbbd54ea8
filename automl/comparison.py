"""Compares optimizers on one network: a sweep of learning rates for each, then several seeds at the best."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automl.child_trainers.built_in import BuiltInTask
from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.devices import environment, start_tensorflow
from automl.child_trainers.images.task import ImageClassification
from automl.child_trainers.recipes import RATES
from automl.child_trainers.registry import TASKS, kind_of
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
from automl.search_spaces.names import validate_choice
from automl.wording import counted

Progress = Callable[
    [Trial, Mapping[str, Any], int, int], None
]  # a trial, what it found, how many are done, of how many

UNUSED = {  # constants of recipes that say how weights are updated
    "learning_rate": "each optimizer has the best rate of its own sweep (--rates)",
    "momentum": "an optimizer brings its own; name the rule momentum",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        optimizers: see `optimizer_trial.make_optimizer`.
        network: for images a name or `FILE.py:FUNCTION`, for text `lstm`; None is `small`, or `lstm`.
        options: of the task's recipe, `epochs` among them: those of a training at the best rate.
        sweep_epochs: of a training in the sweep.
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
        """Raises ValueError where something cannot be; loads the data."""
        validate_choice("task", kind_of(self.task), TASKS)
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
        self._judge.prepare()

    def data_summary(self) -> DataSummary | None:
        """How the data were read."""
        return self._judge.data_summary()

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
        """Those at the best rates, by optimizer."""
        return [self._trial(name, rate, seed, None) for seed in range(self.seeds) for name, rate in best.items()]

    def best_rates(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """The rate of the best trial of each optimizer's sweep, without those that diverged at every rate."""
        best: dict[str, tuple[float, float]] = {}
        for trial in self.sweep():
            value = found[key_of(trial)].get("best")
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
            tested=recipe == self._recipe,  # what a sweep finds only chooses a rate
            fingerprints=self._fingerprints + meaning_of(optimizer),
        )

    @property
    def _network(self) -> str:
        return self.network or ("small" if self._of_images else LSTM_NETWORK)

    @functools.cached_property
    def _recipe(self) -> dict[str, Any]:
        return default_recipe(self.task) | dict(self.options)

    @functools.cached_property
    def _judge(self) -> BuiltInTask[Any]:
        return make_task(self.task, self._recipe, data_dir=self.data_dir, unseen=self.unseen)

    @functools.cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        hashes = []
        if self.network is not None and UserFile.is_reference(self.network):
            hashes.append(UserFile.read(self.network).sha256)
        if (of_data := self._judge.fingerprint) is not None:
            hashes.append(of_data)
        return tuple(hashes)


@dataclasses.dataclass(frozen=True)
class Row:
    """One optimizer's result.

    Attributes:
        rate: its best, None where it diverged at every rate.
        values: the best validation metric of each seed; None where it diverged.
        tests: of the same weights on the test data.
        curves: the validation metric of every epoch, one list for each seed.
    """

    optimizer: str
    rate: float | None
    values: list[float | None]
    tests: list[float | None]
    curves: list[list[float]]


def compare(comparison: Comparison, path: Path, *, workers: int, progress: Progress) -> list[Row]:
    """Trains what is not in the file yet, and adds it there; so a comparison that was stopped goes on.

    Args:
        path: a JSON file, of this comparison or new.

    Raises:
        ValueError: the file is no such file.
    """
    found = load(path)
    with _pool(workers) as pool:
        trials = comparison.sweep()
        _train(pool, trials, found, path, progress)
        best = comparison.best_rates(found)
        trainings = comparison.trainings(best)
        _train(pool, trainings, found, path, progress)
    rows = []
    for name in comparison.optimizers:
        of_it = [found[key_of(trial)] for trial in trainings if trial.optimizer == name]
        tests = [next((v for k, v in one.items() if k.startswith("test_")), None) for one in of_it]
        rows.append(
            Row(name, best.get(name), [one.get("best") for one in of_it], tests, [one["curve"] for one in of_it])
        )
    worst = -math.inf if comparison.maximize else math.inf
    return sorted(rows, key=lambda row: _mean(row.values, worst), reverse=comparison.maximize)


def load(path: Path) -> dict[str, dict[str, Any]]:
    """What earlier runs found, by trial. Raises ValueError."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["trials"]
        return {key: dict(result) for key, result in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is no comparison of optimizers; name another file.") from None


def key_of(trial: Trial) -> str:
    """All that a trial's result depends on, as text; where its data lie does not count."""
    fields = dataclasses.asdict(dataclasses.replace(trial, recipe=dict(sorted(trial.recipe.items())), data_dir=None))
    return json.dumps({name: value for name, value in fields.items() if name != "data_dir"}, sort_keys=True)


def check_plot(path: Path) -> None:
    """Raises ValueError where no plot can be written to this path."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("A plot needs one package more: pip install 'automl-reinforce[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    known_types = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known_types:
        raise ValueError(f"--plot {path} is no kind of picture; its name ends in one of {', '.join(known_types)}.")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises ValueError where the folder that a file is to be written to is not there."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"The folder {path.parent} for {path.name} does not exist; create it first.")


def plot(comparison: Comparison, rows: Sequence[Row], path: Path) -> None:
    """Draws the mean curve of every optimizer, with the spread of its seeds. `check_plot` says whether it can."""
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


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    """Processes of one thread each, which see no GPU."""
    os.environ.update(environment(threads=1, gpu=None))
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker)


def _begin_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start_tensorflow()


def _end_with_parent() -> None:
    """Ends this process when the one that began it is gone, however it ended: a pool's processes wait for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _train(
    pool: concurrent.futures.Executor,
    trials: Iterable[Trial],
    found: dict[str, dict[str, Any]],
    path: Path,
    progress: Progress,
) -> None:
    wanted = list(trials)
    running = {pool.submit(run, trial): trial for trial in wanted if key_of(trial) not in found}
    done = len(wanted) - len(running)
    try:
        for future in concurrent.futures.as_completed(running):
            trial = running[future]
            found[key_of(trial)] = future.result()
            done += 1
            _save(found, path)
            progress(trial, found[key_of(trial)], done, len(wanted))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _save(found: Mapping[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps({"trials": found}, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
