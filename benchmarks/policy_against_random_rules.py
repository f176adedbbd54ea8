"""The policy against random search on update rules: mean reward of the best 1, 5 and 15 and of the last 50 rules.

All searches train the same number of rules, on 512 digits, with one epoch at the best rate of the sweep. With more
training, all of the best rules would be near 1.

    python benchmarks/policy_against_random_rules.py [--children 200] [--seeds 3] [--workers 2]

For CIFAR-10 with the recipe `quick`, add `--task cifar10` and set AUTOML_DATA.
"""

import argparse

import numpy as np
from searching import policy_alone, trained_children

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
    stats: dict[str, list[list[float]]] = {controller: [] for controller in CONTROLLERS}
    for seed in range(arguments.seeds):
        for controller, means in stats.items():
            trained = trained_children(
                arguments.children,
                space="update-rule",
                task=arguments.task,
                set=OPTIONS[arguments.task],
                seed=seed,
                workers=arguments.workers,
                **policy_alone(controller),
            )
            in_order = np.array([child.reward or 0.0 for child in trained])
            best = np.sort(in_order)[::-1]
            means.append([*(float(best[:count].mean()) for count in COUNTS), float(in_order[-50:].mean())])
            screened = sum(child.ending == "screened" for child in trained)
            seconds = np.mean([child.seconds or 0.0 for child in trained])
            columns = " | ".join(f"{value:.4f}" for value in means[-1])
            print(f"| {controller} | {seed} | {columns} | {screened} | {seconds:.1f} |", flush=True)
    for controller in CONTROLLERS[:-1]:
        differences = np.mean(stats[controller], axis=0) - np.mean(stats["random"], axis=0)
        text = ", ".join(f"{difference:+.4f}" for difference in differences)
        print(f"{controller} less random, top 1, 5, 15, last 50: {text}")


if __name__ == "__main__":
    main()
