"""The policy against random search on NAS-Bench-Macro: regret, and the mean of the best, per seed.

    AUTOML_DATA=… python benchmarks/policy_against_random_table.py [--seeds 20] [--children 200]

Searches run through the store, as `automl search --workers 0` runs them.
"""

import argparse
from pathlib import Path

import numpy as np
from nasbench_macro import table
from paired import interval
from searching import trained_children

HERE = Path(__file__).parent


def rewards(controller: str, seed: int, children: int) -> list[float]:
    trained = trained_children(
        children,
        space=f"{HERE}/nasbench_macro.py:space",
        task=f"{HERE}/nasbench_macro.py:evaluate",
        controller=controller,
        seed=seed,
        workers=0,
    )
    return [child.reward for child in trained if child.reward is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--children", type=int, default=200)
    arguments = parser.parse_args()
    best = max(table().values())
    rows: dict[str, list[list[float]]] = {"reinforce": [], "random": []}
    for seed in range(arguments.seeds):
        for controller, stats in rows.items():
            run = np.array(rewards(controller, seed, arguments.children))
            ordered = np.sort(run)[::-1]
            regrets = [best - run[:count].max() for count in (50, 100, arguments.children)]
            stats.append([*regrets, ordered[0], ordered[:5].mean(), ordered[:15].mean()])
            print(f"{controller:9} seed {seed:2}  " + "  ".join(f"{value:8.4f}" for value in stats[-1]), flush=True)
    policy, random = np.array(rows["reinforce"]), np.array(rows["random"])
    names = ("regret at 50", "regret at 100", f"regret at {arguments.children}", "top 1", "top 5", "top 15")
    print(f"\n| mean of {arguments.seeds} seeds | reinforce | random | difference, 95% of paired means |")
    print("|---|---|---|---|")
    for column, name in enumerate(names):
        low, high = interval(policy[:, column] - random[:, column])
        means = f"{policy[:, column].mean():.4f} | {random[:, column].mean():.4f}"
        print(f"| {name} | {means} | {low:+.4f} to {high:+.4f} |")
    wins = all((policy[:, column] > random[:, column]).mean() > 0.5 for column in (3, 4, 5))
    print(f"regret={policy[:, 2].mean():.4f} policy_wins={wins}")


if __name__ == "__main__":
    main()
