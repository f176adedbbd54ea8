"""The policy alone against random search on the digits: mean reward of the last 30 of 150 children, seeds 0, 1, …

python benchmarks/policy_against_random_digits.py [--seeds 2] [--children 150] [--workers 2]
"""

import argparse

import numpy as np
from searching import policy_alone, trained_children


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--children", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    means: dict[str, list[float]] = {"reinforce": [], "random": []}
    print(
        "| controller | seed | last 30 | all | best | seconds a child, median | most |\n|---|---|---|---|---|---|---|"
    )
    for seed in range(arguments.seeds):
        for controller, of_controller in means.items():
            children = trained_children(
                arguments.children, task="digits", seed=seed, workers=arguments.workers, **policy_alone(controller)
            )
            rewards = [child.reward or 0.0 for child in children]
            seconds = [child.seconds or 0.0 for child in children]
            of_controller.append(float(np.mean(rewards[-30:])))
            columns = [of_controller[-1], np.mean(rewards), max(rewards), np.median(seconds), max(seconds)]
            print(f"| {controller} | {seed} | {' | '.join(f'{value:.4f}' for value in columns)} |", flush=True)
    differences = np.array(means["reinforce"]) - np.array(means["random"])
    print("differences of the last 30, by seed: " + ", ".join(f"{value:+.4f}" for value in differences))
    print(f"policy={np.mean(means['reinforce']):.4f} random={np.mean(means['random']):.4f}")


if __name__ == "__main__":
    main()
