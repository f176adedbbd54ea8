"""Does the predicted reward of stopped children mislead the controller? NAS-Bench-Macro with learning curves.

Every network gets a made-up curve of nine epochs that ends at its published accuracy: networks learn at speeds of
their own, so curves cross, and values are noisy. Searches with and without early stopping are compared by seed: the
true accuracy of the last 50 children (what the policy has learned to propose), the regret of the best child trained to
its end, and the share of epochs that were trained. A second table gives searches that stop early as many children as
make the same number of epochs.

    AUTOML_DATA=… python benchmarks/early_stop_table.py [--seeds 10] [--children 200]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from nasbench_macro import table
from paired import interval
from searching import trained_children

EPOCHS = 9
STOPPERS = ("none", "median", "hyperband", "asha")


def evaluate(spec: dict[str, list[int]], epochs: int, report: Any) -> float:
    """The published accuracy, after as many epochs of a curve towards it."""
    key = "".join(map(str, spec["blocks"]))
    final = table()[key]
    generator = np.random.default_rng(int(key, 3))
    speed, gap = generator.uniform(0.25, 0.6), generator.uniform(15.0, 40.0)
    for epoch in range(1, epochs + 1):
        noise = generator.normal(0.0, 1.5) * (epochs - epoch) / epochs
        report(epoch, reward=final - gap * np.exp(-speed * epoch) + gap * np.exp(-speed * epochs) + noise)
    return final


def run(stopper: str, seed: int, children: int) -> tuple[float, float, float]:
    here = Path(__file__).resolve()
    trained = trained_children(
        children,
        space=f"{here.with_name('nasbench_macro.py')}:space",
        task=f"{here}:evaluate",
        set=[f"task.epochs={EPOCHS}"],
        early_stop=stopper,
        seed=seed,
        workers=0,
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
    shares = compare(dict.fromkeys(STOPPERS, arguments.children), arguments.seeds)
    print("\nAt as many epochs")
    compare({stopper: round(arguments.children / share) for stopper, share in shares.items()}, arguments.seeds)


def compare(children: dict[str, int], seeds: int) -> dict[str, float]:
    """Prints a table of searches of so many children with each stopper; returns what share of epochs each trained."""
    found: dict[str, list[tuple[float, float, float]]] = {stopper: [] for stopper in children}
    for seed in range(seeds):
        for stopper, rows in found.items():
            rows.append(run(stopper, seed, children[stopper]))
    print("| early stop | children | last 50, true | against none, 95% of paired means | regret | epochs trained |")
    print("|---|---|---|---|---|---|")
    plain = np.array(found["none"])
    for stopper, rows in found.items():
        figures = np.array(rows)
        last, regret, epochs = figures.mean(axis=0)
        low, high = interval(figures[:, 0] - plain[:, 0])
        told = f"{last:.4f} | {low:+.4f} to {high:+.4f} | {regret:.4f} | {epochs:.0%}"
        print(f"| {stopper} | {children[stopper]} | {told} |", flush=True)
    return {stopper: float(np.array(rows)[:, 2].mean()) for stopper, rows in found.items()}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
