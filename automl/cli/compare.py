"""The command `compare-optimizers`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl.child_trainers.behaviour import Behaviour
from automl.child_trainers.devices import quiet_native_start
from automl.child_trainers.recipes import RATES
from automl.child_trainers.update_rules.trial import Trial, make_optimizer, rule_names
from automl.child_views import spread
from automl.cli import startup
from automl.cli.commands import open_for_reading
from automl.cli.data import report_data
from automl.cli.streams import ignore_closed_output
from automl.cli.tables import print_table
from automl.cli.terminal import print, print_json
from automl.comparison import Comparison, Row, compare, load, plot
from automl.pictures import check_folder, check_plot
from automl.settings.parsing import task_options
from automl.settings.schema import MOST_PROCESSES
from automl.wording import counted, format_number


def compare_optimizers(
    optimizers: Sequence[str],
    store_option: str | None,
    *,
    search: str | None,
    best: int,
    task: str,
    network: str | None,
    options: Sequence[str],
    rates: str | None,
    sweep_epochs: int,
    seeds: int,
    unseen: bool,
    workers: int | None,
    data_dir: str | None,
    to: Path,
    picture: Path | None,
    as_json: bool,
) -> None:
    if workers is not None and not 1 <= workers <= MOST_PROCESSES:
        raise ValueError(f"--workers is {workers}; it must be 1 to {MOST_PROCESSES}.")
    ignore_closed_output()
    names = list(optimizers)
    if search is not None:
        names += [rule for rule in _best_rules(search, best, store_option) if rule not in names]
    if not names:
        raise ValueError(
            "No optimizer is named: give update rules or Keras optimizers, or a search of update rules with --from."
        )
    comparison = Comparison(
        tuple(names),
        task=task,
        network=network,
        options=task_options(options),
        rates=_rates(rates),
        sweep_epochs=sweep_epochs,
        seeds=seeds,
        data_dir=data_dir or os.environ.get("AUTOML_DATA"),
        unseen=unseen,
    )
    check_folder(to)
    load(to)
    if picture is not None:
        check_plot(picture)
    with quiet_native_start():
        for name in names:
            make_optimizer(name, 0.1, 1, 0)
        comparison.check()
    if not as_json and (summary := comparison.data_summary()) is not None:
        report_data(summary, print, warnings=True)

    def progress(trial: Trial, outcome: Mapping[str, Any], done: int, count: int) -> None:
        if as_json:
            return
        result = "diverged" if "diverged" in outcome else f"{comparison.metric} {format_number(outcome['best'])}"
        epochs = counted(trial.recipe["epochs"], "epoch")
        training = f"{trial.optimizer} at {trial.rate:g}, seed {trial.seed}, {epochs}"
        print(f"{done}/{count} {training}: {result} ({outcome['seconds']:.0f} s)", flush=True)

    startup.finish()
    if not as_json:
        print(comparison.title)
    rows = compare(comparison, to, workers=workers or len(os.sched_getaffinity(0)), progress=progress)
    if picture is not None:
        plot(comparison, rows, picture)
    if as_json:
        print_json([vars(row) for row in rows])
        return
    test = f"test_{comparison.metric.removeprefix('val_')}"
    print_table(["optimizer", "rate", comparison.metric, test], [_cells(row) for row in rows], below="optimizer")
    if picture is not None:
        print(f"The curves are in {picture}.")


def _cells(row: Row) -> list[str]:
    if row.rate is None:
        return [row.optimizer, "-", "diverged at every rate", "-"]
    finite = [value for value in row.values if value is not None]
    tested = [value for value in row.tests if value is not None]
    diverged = f" ({len(row.values) - len(finite)} diverged)" if len(finite) < len(row.values) else ""
    validation, test = (spread(values) if values else "-" for values in (finite, tested))
    return [row.optimizer, f"{row.rate:g}", validation + diverged, test]


def _best_rules(name: str, count: int, store_option: str | None) -> list[str]:
    """The texts of the best rules of a search. Raises ValueError if it has none."""
    with open_for_reading(store_option) as store:
        search = store.search(name)
        children = store.top(search.id, count)
    versions = dataclasses.asdict(Behaviour.of_settings(search.settings))
    return rule_names(name, search.space, [child.spec for child in children], versions)


def _rates(text: str | None) -> tuple[float, ...]:
    if text is None:
        return RATES
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--rates is {text!r}; write numbers with commas between them: 0.001,0.01,0.1") from None
