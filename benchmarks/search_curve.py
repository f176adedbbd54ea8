"""The progress of a finished search as a table: mean reward of each tenth of its children, and the best so far.

python benchmarks/search_curve.py NAME [--store automl.db] [--metric val_accuracy]
"""

import argparse

import numpy as np

import automl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--store", default=None)
    parser.add_argument("--metric", default="val_accuracy")
    arguments = parser.parse_args()
    store = automl.open_store(arguments.store)
    search = store.search(arguments.name)
    began = store.segments(search.id)[0].started
    children = [child for child in store.children(search.id) if child.state == "trained"]
    print(f"| children | minutes | mean reward | mean {arguments.metric} | {arguments.metric} of the best so far |")
    print("|---|---|---|---|---|")
    best = children[0]
    for part in np.array_split(np.arange(len(children)), min(10, len(children))):
        some = [children[index] for index in part]
        values = [child.metrics[arguments.metric] for child in some]
        best = max(best, *some, key=lambda child: child.reward)
        minutes = max(child.finished - began for child in some) / 60
        rewards = np.mean([child.reward for child in some])
        numbers = f"{some[0].number} to {some[-1].number}"
        reached = best.metrics[arguments.metric]
        print(f"| {numbers} | {minutes:.1f} | {rewards:.4g} | {np.mean(values):.4f} | {reached:.4f} |")
    summary = f"best={reached:.4f} reward={best.reward:.4g} child={best.number} params={best.params}"
    print(f"children={len(children)} {summary}")


if __name__ == "__main__":
    main()
