"""Two hundred children, a third of which crash, hang, leak, diverge or kill their process: does each end as expected?

Checks every child's state, and that no process and no file is left over. Then compares the search's time with the time
that its slots need: the seconds of all attempts and of the start of a new worker after every death, divided by the
number of workers.

python benchmarks/pool_faults.py [--workers 2]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faulty

import automl

STALL, MEMORY = 5, "700M"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        others = set(workers_alive())
        start = seconds_to_start(folder)
        began = time.perf_counter()
        search(folder, "faults", workers=arguments.workers, children=faulty.CHILDREN, task="evaluate")
        took = time.perf_counter() - began
        result = automl.Result("faults", f"{folder}/faults.db")
        wrong = []
        for child in result.children:
            deed = faulty.deed_of(child.spec)
            expected = ("trained", None) if deed is None else deed[1:]
            if (child.state, child.fault) != expected:
                wrong.append(
                    f"child {child.number} ({deed[0].__name__ if deed else 'well'}) {child.state} {child.fault}"
                )
        store = automl.open_store(f"{folder}/faults.db")
        attempts = [attempt for child in result.children for attempt in store.attempts(child.id)]
        store.close()
        left = [command for pid, command in workers_alive().items() if pid not in others]
        files = sorted(path.name for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".log")
        deaths = sum(attempt.fault in ("crashed", "timeout") for attempt in attempts)
        deaths += sum((faulty.deed_of(child.spec) or [None])[0] is faulty.leak for child in result.children)
        busy = sum((attempt.ended or 0.0) - attempt.started for attempt in attempts)
        needed = (busy + (deaths + arguments.workers) * start) / arguments.workers
        print(f"{len(result.children)} children, {len(attempts)} attempts, {deaths} deaths of workers")
        print(f"wrong states: {wrong or 'none'}; processes left: {left or 'none'}; files: {', '.join(files)}")
        print(f"{took:.1f} s, where the slots need {needed:.1f} s ({start:.2f} s to start a worker)")
        print(f"wrong={len(wrong)} left={len(left)} time_ratio={took / needed:.3f}")


def search(folder: str, name: str, *, workers: int, children: int, task: str) -> None:
    here = Path(faulty.__file__).resolve()
    command = [str(Path(sys.executable).with_name("automl")), "search", name, "--store", f"{folder}/{name}.db"]
    command += ["--space", f"{here}:space", "--task", f"{here}:{task}", "--controller", "random", "--keep-going"]
    command += ["--workers", str(workers), "--children", str(children), "--stall", f"{STALL}s"]
    subprocess.run([*command, "--worker-memory", MEMORY], check=True, stdout=subprocess.DEVNULL)


def seconds_to_start(folder: str) -> float:
    """Seconds from the start of a worker to its first claim."""
    search(folder, "start", workers=1, children=1, task="evaluate")
    store = automl.open_store(f"{folder}/start.db")
    started = store.search("start")
    attempts = [attempt for child in store.children(started.id) for attempt in store.attempts(child.id)]
    began = store.segments(started.id)[0].started
    store.close()
    return min(attempt.started for attempt in attempts) - began


def workers_alive() -> dict[str, str]:
    """Command lines, by process ID, of workers and of the processes that children have started."""
    commands = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "automl.child_trainers.workers.worker" in command or "time.sleep(1000)" in command:
                    commands[entry.name] = command[:80]
    return commands


if __name__ == "__main__":
    main()
