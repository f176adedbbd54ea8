"""Two workers with one thread against one worker with two: children per hour of the same search on two cores.

    AUTOML_DATA=… python benchmarks/threads.py [--children 12] [--epochs 3]

The last line is `ratio=R`, the speed of two workers over that of one.
"""

import argparse
import tempfile

import automl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    rates = {}
    for workers, threads in ((2, 1), (1, 2)):
        with tempfile.TemporaryDirectory() as folder:
            children = automl.search(
                "threads",
                store=f"{folder}/threads.db",
                task="cifar10",
                controller="random",
                set=(f"task.epochs={arguments.epochs}",),
                max_flops=12_000_000,
                early_stop="none",
                replicas=2,
                children=arguments.children,
                workers=workers,
                threads=threads,
            ).children
        trained = [child for child in children if child.state == "trained"]
        seconds = max(child.finished or 0.0 for child in trained) - min(child.started or 0.0 for child in trained)
        rates[workers] = len(trained) / seconds * 3600
        print(f"{workers} x {threads} threads: {len(trained)} children, {rates[workers]:.0f} an hour")
    print(f"ratio={rates[2] / rates[1]:.2f}")


if __name__ == "__main__":
    main()
