"""The time of commands that the user waits for: `--help`, and `list`, `show` and `top` on a store of 10,000 children.

    python benchmarks/startup.py [--children 10000] [--runs 5]

Prints wall seconds of whole processes, the median of the runs. For comparison, it also measures a Python process that
only imports SQLAlchemy's ORM, which shows how fast the machine is at that time.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from automl.db.owner import Owner
from automl.db.records import Delivery, NewChild, Origin, SearchState, Step
from automl.db.store import Store

BATCH = 100


def fill(path: Path, children: int) -> None:
    """Writes a search with this number of trained children, through the store, as a search does."""
    store = Store(str(path), create=True)
    search = store.create_search(
        "large",
        space="convnet",
        task="digits",
        controller="random",
        seed=0,
        replicas=1,
        batch_size=BATCH,
        threads=1,
        settings={"space": {"file": None}, "task": {"file": None}},
        budget=children,
    )
    lease = store.take_lease("large", Owner.this_process())
    layer = {"filter_height": 3, "filter_width": 3, "num_filters": 24, "stride_height": 1, "stride_width": 1}
    layers = [{**layer, "pool": False, "inputs": [*range(index)][-2:]} for index in range(6)]
    for batch in range(children // BATCH):
        proposals = [
            NewChild(
                number=number,
                batch=batch,
                policy_step=batch,
                origin=Origin.POLICY,
                tries=0,
                tokens=tuple(range(40)),
                log_probs=(-1.0,) * 40,
                canonical_hash=str(number),
                spec={"layers": layers},
                seed=number,
                params=10_000,
                flops=1_000_000,
            )
            for number in range(batch * BATCH, (batch + 1) * BATCH)
        ]
        store.commit_step(lease, Step(batch, None, {}, "0" * 64, None, None), {}, proposals, {})
        for number in range(BATCH):
            claim = store.claim(search.id, "worker", "cpu")
            assert claim is not None
            reward = (claim.number * 7919 % children) / children
            store.deliver(claim, Delivery(reward=reward, metrics={"val_accuracy": reward}, seconds=1.0))
            assert claim.number == batch * BATCH + number
    store.release(lease, SearchState.FINISHED, None)
    store.close()


def seconds(command: list[str], runs: int) -> float:
    """The median wall time of the command; a run before the measured ones warms the disk cache.

    Raises:
        RuntimeError: the command complains about the store, and so does less than it should.
    """
    times = []
    for run in range(runs + 1):
        began = time.perf_counter()
        ran = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if ran.stderr:
            raise RuntimeError(f"{' '.join(command)}: {ran.stderr}")
        if run:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.db"
        fill(path, arguments.children)
        automl, store = str(Path(sys.executable).with_name("automl")), ["--store", str(path)]
        medians = {
            "orm": seconds([sys.executable, "-c", "import sqlalchemy.orm"], arguments.runs),
            "help": seconds([automl, "--help"], arguments.runs),
        }
        for command in (["list"], ["show", "large"], ["top", "large"]):
            medians[command[0]] = seconds([automl, *command, *store], arguments.runs)
    print(" ".join(f"{name}={median:.2f}" for name, median in medians.items()))


if __name__ == "__main__":
    main()
