"""The best cell of a search, NASCell and the LSTM trained again, alike: perplexities on the Penn Treebank.

Equal parameters, the recipe `quick` on the whole text, as many epochs and seeds each. The test text is read by nothing
else.

    automl search cells --space recurrent-cell --task ptb --time 60m
    AUTOML_DATA=… python benchmarks/cells_trained_again.py cells --folder FOLDER [--epochs 3] [--seeds 2] [--workers 2]

What is in the folder already is not done again; what was interrupted goes on from its last epoch.
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
from child_trainers.checkpoints import Checkpoint
from child_trainers.devices import Compute, default_precision, environment
from search_spaces.recurrent_cell.lstm import LSTM
from search_spaces.recurrent_cell.named import NASCELL

CELLS = ("best", "nascell", "lstm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search")
    parser.add_argument("--store", default=None)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=CELLS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment(threads=1, gpu=None))  # of the processes that are started below
    cells: dict[str, Any] = {"nascell": NASCELL, "lstm": LSTM()}
    if "best" in arguments.cells:
        cells["best"] = best_cell(arguments.search, arguments.store)
    asked = [(name, seed) for seed in range(arguments.seeds) for name in arguments.cells]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.workers, mp_context=spawn) as pool:
        running = [
            pool.submit(trained, name, cells[name], seed, arguments.epochs, arguments.folder) for name, seed in asked
        ]
        found = [future.result() for future in running]
    print(f"\n| cell | units | parameters | val_perplexity, {arguments.seeds} seeds | test_perplexity |")
    print("|---|---|---|---|---|")
    for name in arguments.cells:
        runs = [run for (other, _), run in zip(asked, found, strict=True) if other == name]
        columns = [", ".join(f"{run[key]:.2f}" for run in runs) for key in ("val_perplexity", "test_perplexity")]
        print(f"| {name} | {runs[0]['units']} | {runs[0]['parameters']:,} | {' | '.join(columns)} |")


def best_cell(search: str, store: str | None) -> Any:
    from automl.stored import load_space

    found = automl.open_store(store)
    (best,) = found.top(found.search(search).id, 1)
    print(f"best: child {best.number}, {best.metrics}")
    return load_space(found.search(search)).decode(best.tokens).spec


def trained(name: str, cell: Any, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Trains a cell, or reads what it came to."""
    from child_trainers.recipes import RECIPES, LanguageRecipe
    from child_trainers.tasks.language_modeling import LanguageModeling

    path = folder / f"{name}-{seed}.json"
    whole = {"epochs": epochs, "num_train": None, "num_validation": None}
    recipe = LanguageRecipe(**(RECIPES["ptb"]["quick"] | whole))
    compute = Compute(default_precision([]))
    task = LanguageModeling("ptb", recipe, data_dir=Path(os.environ["AUTOML_DATA"]), compute=compute)
    identity = f"{cell} {seed} {task.describe()}"
    if path.exists() and (before := json.loads(path.read_text()))["identity"] == identity:
        return dict(before)
    checkpoint = Checkpoint(path.with_suffix(".checkpoint"), identity)
    outcome = task.evaluate(cell, seed=seed, report=PrintedRecord(f"{name} {seed}", checkpoint))
    tested = task.test(task.model(cell, dict(outcome.weights or {})), cell)
    counted = task.count(cell)
    assert counted is not None
    found = {"identity": identity, "parameters": counted[0], **outcome.metrics, **tested}
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(found))
    beside.replace(path)
    checkpoint.remove()
    return found


if __name__ == "__main__":
    main()
