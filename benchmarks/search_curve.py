"""The course of a finished search as a table: mean reward of each tenth of its children, and the best so far.

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
    print(f"| children | minutes | mean reward | mean {arguments.metric} | best {arguments.metric} so far |")
    print("|---|---|---|---|---|")
    best = -np.inf
    for part in np.array_split(np.arange(len(children)), min(10, len(children))):
        some = [children[index] for index in part]
        values = [child.metrics[arguments.metric] for child in some]
        best = max(best, *values)
        minutes = max(child.finished - began for child in some) / 60
        rewards = np.mean([child.reward for child in some])
        numbers = f"{some[0].number} to {some[-1].number}"
        print(f"| {numbers} | {minutes:.1f} | {rewards:.4f} | {np.mean(values):.4f} | {best:.4f} |")
    top = store.top(search.id, 1)[0]
    print(f"children={len(children)} best={best:.4f} reward={top.reward:.4f} child={top.number} params={top.params}")


if __name__ == "__main__":
    main()
