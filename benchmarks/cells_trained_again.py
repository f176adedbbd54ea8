"""Retrains the best cells of a search, NASCell and the LSTM, and compares their perplexities on the Penn Treebank.

All have equal parameters, the recipe `quick` on the whole text, and the same number of epochs and seeds. Only this
benchmark reads the test text.

    automl search cells --space recurrent-cell --task ptb --time 60m
    AUTOML_DATA=… python benchmarks/cells_trained_again.py cells --folder FOLDER [--best 2] [--epochs 3] [--seeds 2]

Results that are already in the folder are not computed again. An interrupted training continues after its last epoch.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

from printed import PrintedRecord

import automl
from automl.child_trainers.devices import Compute, default_precision, environment
from automl.child_trainers.outcome import DivergedError
from automl.child_trainers.training.checkpoints import FileCheckpoint
from automl.search_spaces.recurrent_cell.lstm import LSTM
from automl.search_spaces.recurrent_cell.named import NASCELL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search")
    parser.add_argument("--store", default=None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--best", type=int, default=2, help="number of best cells of the search")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment(threads=1, gpu=None))  # for the processes that are started below
    cells: dict[str, Any] = best_cells(arguments.search, arguments.store, arguments.best)
    cells |= {"nascell": NASCELL, "lstm": LSTM()}
    trainings = [(name, seed) for seed in range(arguments.seeds) for name in cells]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.workers, mp_context=spawn) as pool:
        running = [
            pool.submit(trained, name, cells[name], seed, arguments.epochs, arguments.folder)
            for name, seed in trainings
        ]
        results = [future.result() for future in running]
    print(f"\n| cell | units | parameters | val_perplexity, {arguments.seeds} seeds | test_perplexity |")
    print("|---|---|---|---|---|")
    for name in cells:
        runs = [run for (other, _), run in zip(trainings, results, strict=True) if other == name]
        columns = [", ".join(metric_text(run, key) for run in runs) for key in ("val_perplexity", "test_perplexity")]
        print(f"| {name} | {runs[0]['units']} | {runs[0]['parameters']:,} | {' | '.join(columns)} |")


def best_cells(search: str, store: str | None, count: int) -> dict[str, Any]:
    from automl.stored import load_space

    opened = automl.open_store(store)
    space = load_space(opened.search(search))
    cells = {}
    for child in opened.top(opened.search(search).id, count):
        name = f"child-{child.number}"
        print(f"{name}: {child.metrics}")
        cells[name] = space.decode(child.tokens).spec
    return cells


def metric_text(run: dict[str, Any], key: str) -> str:
    return f"{run[key]:.2f}" if key in run else "diverged"


def trained(name: str, cell: Any, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Trains a cell, or reads the stored result of its training."""
    from automl.child_trainers.recipes import RECIPES, LanguageRecipe
    from automl.child_trainers.text.task import LanguageModeling

    path = folder / f"{name}-{seed}.json"
    whole = {"epochs": epochs, "num_train": None, "num_validation": None}
    recipe = LanguageRecipe(**(RECIPES["ptb"]["quick"] | whole))
    compute = Compute(default_precision([]))
    task = LanguageModeling("ptb", recipe, data_dir=Path(os.environ["AUTOML_DATA"]), compute=compute)
    identity = f"{cell} {seed} {task.describe()}"
    if path.exists() and (before := json.loads(path.read_text()))["identity"] == identity:
        return dict(before)
    checkpoint = FileCheckpoint(path.with_suffix(".checkpoint"), identity)
    counted = task.count(cell)
    assert counted is not None
    result: dict[str, Any] = {"identity": identity, "parameters": counted[0], "units": task.units(cell)}
    try:
        outcome = task.evaluate(cell, seed=seed, report=PrintedRecord(f"{name} {seed}", checkpoint))
        result |= {**outcome.metrics, **task.test(task.model(cell, dict(outcome.weights or {})), cell)}
    except DivergedError as error:
        print(f"{name} {seed}: {error}", flush=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(result))
    temporary.replace(path)
    checkpoint.remove()
    return result


if __name__ == "__main__":
    main()
