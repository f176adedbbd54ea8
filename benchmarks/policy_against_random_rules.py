"""The policy against random search on update rules: mean of the best 1, 5 and 15, and of the last 50, of equally many.

Rules are judged on 512 digits with one epoch at the best rate of the sweep, so that the best do not all come near 1.

    python benchmarks/policy_against_random_rules.py [--children 200] [--seeds 3] [--workers 2]

Or on real CIFAR-10, with the recipe `quick`: add `--task cifar10`, with AUTOML_DATA set.
"""

import argparse

import numpy as np
from searching import trained_children

OPTIONS = {"digits": ("task.num_train=512", "task.epochs=1"), "cifar10": ()}
CONTROLLERS = ("ppo", "reinforce", "random")
COUNTS = (1, 5, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=tuple(OPTIONS), default="digits")
    parser.add_argument("--children", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| controller | seed | top 1 | top 5 | top 15 | last 50 | screened | seconds a rule |")
    print("|---|---|---|---|---|---|---|---|")
    found: dict[str, list[list[float]]] = {controller: [] for controller in CONTROLLERS}
    for seed in range(arguments.seeds):
        for controller, figures in found.items():
            trained = trained_children(
                arguments.children,
                space="update-rule",
                task=arguments.task,
                set=OPTIONS[arguments.task],
                controller=controller,
                seed=seed,
                workers=arguments.workers,
            )
            in_order = np.array([child.reward or 0.0 for child in trained])
            best = np.sort(in_order)[::-1]
            figures.append([*(float(best[:count].mean()) for count in COUNTS), float(in_order[-50:].mean())])
            screened = sum(child.ending == "screened" for child in trained)
            seconds = np.mean([child.seconds or 0.0 for child in trained])
            told = " | ".join(f"{value:.4f}" for value in figures[-1])
            print(f"| {controller} | {seed} | {told} | {screened} | {seconds:.1f} |", flush=True)
    for controller in CONTROLLERS[:-1]:
        less = np.mean(found[controller], axis=0) - np.mean(found["random"], axis=0)
        told = ", ".join(f"{difference:+.4f}" for difference in less)
        print(f"{controller} less random, top 1, 5, 15, last 50: {told}")


if __name__ == "__main__":
    main()
