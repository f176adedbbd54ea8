"""How two workers spend their time in a search of sixteen children of unequal length on CIFAR-10.

The time of a worker is counted from its first claim to the last delivery of the search. It therefore includes the wait
for the other worker at the end, and the cost of the store, the pool and the controller.

    AUTOML_DATA=… python benchmarks/worker_seconds.py [--children 16] [--epochs 12]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import automl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("automl")), "search", "seconds", "--task", "cifar10"]
        command += ["--children", str(arguments.children), "--workers", "2", "--replicas", "2", "--early-stop", "none"]
        command += ["--set", f"task.epochs={arguments.epochs}", "--store", f"{folder}/seconds.db"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        children = automl.Result("seconds", f"{folder}/seconds.db").children
    trained = [child for child in children if child.state == "trained"]
    first: dict[str, float] = defaultdict(lambda: float("inf"))
    phases: Counter[str] = Counter()
    for child in trained:
        worker = child.worker or ""
        first[worker] = min(first[worker], child.started or 0.0)
        phases.update(child.phases or {})
    last = max(child.finished or 0.0 for child in trained)
    total = sum(last - began for began in first.values())
    seconds = sorted(child.seconds or 0.0 for child in trained)
    print(f"{len(trained)} children of {seconds[0]:.0f} to {seconds[-1]:.0f} s on {len(first)} workers, {total:.0f} s")
    for phase, spent in phases.items():
        print(f"  {phase}: {spent:.1f} s, {spent / total:.2%}")
    outside = 1.0 - phases.total() / total
    print(f"outside={outside:.4f} build_and_trace={(phases['build'] + phases['trace']) / total:.4f}")


if __name__ == "__main__":
    main()
