"""Compares controllers: runs their searches in parallel over seeds, and keeps the results in a file."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from automl.benching.file import BenchFile
from automl.benching.plan import TOP, Checked, Competitor, Plan, Subject, check_jobs
from automl.benching.searches import History, Job, run_job
from automl.benching.summary import Cost, Lead, Row, costs_of, leads_of, rows_of, to_json
from automl.child_trainers.devices import environment
from automl.child_trainers.gpus import forget_gpus
from automl.pictures import check_folder
from automl.processes import process_pool
from automl.wording import counted

SAVE_EVERY = 2.0  # seconds between two writes of the file
GPUS = "CUDA_VISIBLE_DEVICES"
# Receives the competitor, the seed and the history of a search, the number of complete searches, and that of all.
Progress = Callable[[Competitor, int, History, int, int], None]


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """The results of a bench.

    Attributes:
        subject: the space and the task.
        searches: by competitor, the histories of the searches with seeds 0, 1, 2, …
        rows: the means of each competitor at each budget.
        leads: the first competitor compared with each other one, seed by seed.
        costs: the time that each competitor takes.
    """

    plan: Plan
    subject: Subject
    searches: Mapping[str, Sequence[History]]
    rows: Sequence[Row]
    leads: Sequence[Lead]
    costs: Sequence[Cost]

    @property
    def title(self) -> str:
        return f"{self.subject.space} on {self.subject.task}"

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The rows, leads and costs as JSON values."""
        return {
            "rows": [to_json(row) for row in self.rows],
            "leads": [to_json(lead) for lead in self.leads],
            "costs": [to_json(cost) for cost in self.costs],
        }

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws mean curves with the bands of their intervals. Raises ValueError if `path` cannot be such a file."""
        from automl.benching.plot import plot
        from automl.pictures import check_plot

        check_plot(Path(path))
        plot(self.searches, self.plan.children, self.subject.optimum, self.title, Path(path))


def bench(
    *,
    controllers: str | Sequence[str],
    budgets: str | Sequence[int] = (25, 50, 100, 200),
    seeds: int = 20,
    top: str | Sequence[int] = TOP,
    to: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    set: Sequence[str] = (),
    progress: Progress = lambda competitor, seed, history, done, count: None,
    **shared: Any,
) -> BenchResult:
    """Compares controllers at equal budgets over many seeds.

    Each competitor and seed is a separate search with `workers=0`, in a store beside `to`. A later call with the same
    `to` runs only the searches that are missing, for example of more seeds, larger budgets or other controllers.

    Args:
        controllers: `NAME`, `NAME:PRESET` or `FILE.py:CLASS`, each also as `LABEL=…`; in a text, with commas between
            them.
        budgets: numbers of trained children after which searches are compared.
        seeds: the number of seeds, which are 0, 1, 2, …
        top: numbers of best rewards whose mean is reported.
        to: JSON file that keeps all results. None keeps nothing.
        jobs: the number of searches that run at a time, each in its own process; 1 runs them in this process, None runs
            one per core. For more than one, a script calls this under `if __name__ == "__main__":`, because
            `multiprocessing` imports the script again.
        set: `space.NAME=VALUE`, `task.NAME=VALUE`, `LABEL.NAME=VALUE` for an option of one controller, or
            `LABEL.warm-start=SEARCH[@STORE]` for an earlier search that one controller learns from.
        progress: called after each search.
        shared: options of the searches, `BENCH_OPTIONS`, for example `space` and `task`.

    Raises:
        ValueError: an option is unknown or has a bad value, or the file belongs to a bench with other settings or code.
        RuntimeError: a search ended before it had trained its children.
    """
    plan = Plan.make(controllers, budgets=budgets, seeds=seeds, top=top, set=set, **shared)
    count = check_jobs(len(os.sched_getaffinity(0)) if jobs is None else jobs)
    path = None if to is None else Path(to)
    if path is not None:
        check_folder(path)
    with _environment_of_jobs():
        checked = plan.check()
        file = BenchFile(path, plan, checked)
        with file.store() as store:
            _run(plan, checked, file, store, count, progress)
    subject = checked.subject
    searches = {one.label: [file.searches[one.label][seed] for seed in range(plan.seeds)] for one in plan.competitors}
    rows = rows_of(searches, plan.budgets, subject.optimum, plan.top)
    leads = leads_of(searches, plan.budgets, subject.optimum, plan.top)
    result = BenchResult(plan, subject, searches, rows, leads, costs_of(searches))
    file.save({"subject": dataclasses.asdict(subject), **result.tables()})
    return result


@contextlib.contextmanager
def _environment_of_jobs() -> Iterator[None]:
    """Gives this process the threads and devices of a job's process, before the check of the plan imports TensorFlow.

    TensorFlow keeps those that it starts with. So the figures are the same with one job, which runs in this process.
    """
    before = os.environ.get(GPUS)
    os.environ.update(environment(threads=1, gpu=None))
    forget_gpus()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(GPUS, None)
        else:
            os.environ[GPUS] = before
        forget_gpus()


def _run(plan: Plan, checked: Checked, file: BenchFile, store: str, jobs: int, progress: Progress) -> None:
    """Runs the searches that the file lacks, and adds their results to it."""
    wanted = [(one, seed) for seed in range(plan.seeds) for one in plan.competitors]
    missing = [
        (one, seed) for one, seed in wanted if not _is_complete(file.searches[one.label].get(seed), plan.children)
    ]
    if not missing:
        return
    file.check_code()
    done = len(wanted) - len(missing)
    jobs_of = {
        Job(
            name=one.search_name(seed),
            store=store,
            options=plan.options_of(one) | {"seed": seed},
            children=plan.children,
            noiseless=checked.subject.noiseless,
            donors=checked.donors[one.label],
        ): (one, seed)
        for one, seed in missing
    }
    file.save()  # from now on the store has searches with these settings
    saved = time.monotonic()
    try:
        for job, result in _results(list(jobs_of), min(jobs, len(missing))):
            one, seed = jobs_of[job]
            file.searches[one.label][seed] = result
            done += 1
            if time.monotonic() > saved + SAVE_EVERY:
                file.save()
                saved = time.monotonic()
            progress(one, seed, result, done, len(wanted))
    finally:
        file.save()
        file.drop_if_unused()


def _results(jobs: Sequence[Job], count: int) -> Iterator[tuple[Job, History]]:
    """Each job with its history, in the order in which they end. `count` is the number of processes; 1 runs all jobs in
    this one."""
    if count == 1:
        for job in jobs:
            yield job, run_job(job)
        return
    with process_pool(count) as pool:
        running = {pool.submit(run_job, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_complete(history: History | None, children: int) -> bool:
    return history is not None and (len(history.rewards) >= children or history.exhausted)


def line_of(competitor: Competitor, seed: int, history: History) -> str:
    """The best reward and the size of a search, in one line."""
    children = counted(len(history.rewards), "child", "children")
    return f"{competitor.label}, seed {seed}: {max(history.rewards):.4f} after {children} ({history.seconds:.0f} s)"
