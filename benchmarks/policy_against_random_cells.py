"""The paper's control for recurrent cells: policies against random search, mean of the best 1, 5 and 15 children.

Cells of base 8 are trained as language models on 20,000 words of Python's help, with a vocabulary of 1,000. All
searches train the same number of cells. The measure is validation perplexity. Source: Zoph & Le 2017
(arXiv:1611.01578), section 4.2, control 2.

    python benchmarks/policy_against_random_cells.py [--children 150] [--seeds 0 1 2] [--workers 2]
"""

import argparse

import numpy as np
from searching import policy_alone, searched_children

CONTROLLERS = ("reinforce", "ppo", "random")
OPTIONS = ("task.num_train=20000", "task.vocabulary_size=1000", "task.num_validation=5000", "task.parameters=150000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=150)
    parser.add_argument("--controllers", nargs="+", choices=CONTROLLERS, default=CONTROLLERS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| controller | seed | top 1 | top 5 | top 15 | last 30, median | failed | seconds a child |")
    print("|---|---|---|---|---|---|---|---|")
    tops: dict[str, list[list[float]]] = {controller: [] for controller in arguments.controllers}
    for seed in arguments.seeds:
        for controller, means in tops.items():
            children = searched_children(
                arguments.children,
                space="recurrent-cell",
                preset="paper",
                task="pydoc",
                set=OPTIONS,
                early_stop="none",
                seed=seed,
                workers=arguments.workers,
                **policy_alone(controller),
            )
            trained = [child for child in children if child.state == "trained"][: arguments.children]
            in_order = [(child.metrics or {})["val_perplexity"] for child in trained]
            best = np.sort(in_order)
            means.append([float(best[:count].mean()) for count in (1, 5, 15)])
            failed = sum(child.state == "failed" for child in children)
            seconds = np.mean([child.seconds or 0.0 for child in trained])
            columns = " | ".join(f"{value:.1f}" for value in (*means[-1], np.median(in_order[-30:])))
            print(f"| {controller} | {seed} | {columns} | {failed} | {seconds:.1f} |", flush=True)
    if "random" not in tops:
        return
    random = np.mean(tops.pop("random"), axis=0)
    for controller, means in tops.items():
        differences = np.mean(means, axis=0) - random
        print(f"{controller} less random, top 1, 5, 15: " + ", ".join(f"{value:+.2f}" for value in differences))


if __name__ == "__main__":
    main()
