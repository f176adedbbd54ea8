"""Does the predicted reward of pruned children mislead the controller? NAS-Bench-Macro with learning curves.

Every network gets a synthetic curve of nine epochs that ends at its published accuracy. Networks learn at different
speeds, so curves cross, and values are noisy. Searches with and without early stopping are compared by seed: the true
accuracy of the last 50 children (which the policy has learned to propose), the regret of the best child trained to its
end, and the share of epochs that were trained. In a second table, searches with early stopping get more children, so
that all searches train the same number of epochs.

    AUTOML_DATA=… python benchmarks/early_stop_table.py [--seeds 10] [--children 200]
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from paired import interval
from searching import policy_alone, trained_children

from automl import Choice
from automl.child_trainers.tables.nasbench_macro import BLOCKS, GOAL, LAYERS, load_nasbench_macro

EPOCHS = 9
PRUNERS = ("none", "median", "hyperband", "asha")
NAMES = ("identity", "kernel 3, expansion 3", "kernel 5, expansion 6")  # of the blocks


def space() -> Generator[Choice, Any, dict[str, list[int]]]:
    """One of three blocks for each of eight layers."""
    blocks = []
    for index in range(LAYERS):
        block = yield Choice(f"layer{index}", NAMES, kind=f"block{index}")
        blocks.append(BLOCKS[NAMES.index(block)])
    return {"blocks": blocks}


@functools.cache
def table() -> dict[str, float]:
    """Mean accuracy by the digits of the blocks."""
    rows = load_nasbench_macro(Path(os.environ["AUTOML_DATA"]), GOAL).rows
    return {"".join(map(str, key)): results[GOAL.metric] for key, results in rows.items()}


def evaluate(spec: dict[str, list[int]], epochs: int, report: Any) -> float:
    """The published accuracy, after reporting a curve of `epochs` epochs that ends there."""
    key = "".join(map(str, spec["blocks"]))
    final = table()[key]
    generator = np.random.default_rng(int(key, 3))
    speed, gap = generator.uniform(0.25, 0.6), generator.uniform(15.0, 40.0)
    for epoch in range(1, epochs + 1):
        noise = generator.normal(0.0, 1.5) * (epochs - epoch) / epochs
        report(epoch, reward=final - gap * np.exp(-speed * epoch) + gap * np.exp(-speed * epochs) + noise)
    return final


def run(pruner: str, seed: int, children: int) -> tuple[float, float, float]:
    here = Path(__file__).resolve()
    trained = trained_children(
        children,
        space=f"{here}:space",
        task=f"{here}:evaluate",
        set=[f"task.epochs={EPOCHS}"],
        early_stop=pruner,
        seed=seed,
        workers=0,
        **policy_alone("reinforce"),
    )
    truth = [table()["".join(map(str, child.spec["blocks"]))] for child in trained]
    stopped = [child.stopped_at for child in trained]
    finished = [value for value, at in zip(truth, stopped, strict=True) if at is None]
    epochs = sum(EPOCHS if at is None else at for at in stopped) / (EPOCHS * len(trained))
    return float(np.mean(truth[-50:])), max(table().values()) - max(finished), epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--children", type=int, default=200)
    arguments = parser.parse_args()
    print("At as many children")
    shares = compare(dict.fromkeys(PRUNERS, arguments.children), arguments.seeds)
    print("\nAt as many epochs")
    compare({pruner: round(arguments.children / share) for pruner, share in shares.items()}, arguments.seeds)


def compare(children: dict[str, int], seeds: int) -> dict[str, float]:
    """Prints a table of searches by pruner; returns the share of epochs that each trained.

    Args:
        children: the number of children to train, by pruner.
    """
    by_pruner: dict[str, list[tuple[float, float, float]]] = {pruner: [] for pruner in children}
    for seed in range(seeds):
        for pruner, rows in by_pruner.items():
            rows.append(run(pruner, seed, children[pruner]))
    print("| early stop | children | last 50, true | against none, 95% of paired means | regret | epochs trained |")
    print("|---|---|---|---|---|---|")
    without = np.array(by_pruner["none"])
    for pruner, rows in by_pruner.items():
        stats = np.array(rows)
        last, regret, epochs = stats.mean(axis=0)
        low, high = interval(stats[:, 0] - without[:, 0])
        columns = f"{last:.4f} | {low:+.4f} to {high:+.4f} | {regret:.4f} | {epochs:.0%}"
        print(f"| {pruner} | {children[pruner]} | {columns} |", flush=True)
    return {pruner: float(np.array(rows)[:, 2].mean()) for pruner, rows in by_pruner.items()}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
