"""Compares controllers: runs their searches in parallel over seeds, keeps what they found in a file, and goes on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from automl.benching.plan import Competitor, Plan, Subject, check_jobs
from automl.benching.searches import Found, Job, run_job
from automl.benching.summary import Cost, Row, costs_of, rows_of, to_json
from automl.pictures import check_folder
from automl.processes import process_pool
from automl.wording import counted

FORMAT = 1
SAVE_EVERY = 2.0  # seconds between two writes of the file
Progress = Callable[
    [Competitor, int, Found, int, int], None
]  # a search's competitor and seed; how many are done, of all


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """What a bench found.

    Attributes:
        subject: what was searched.
        searches: by competitor, what was found for seed 0, 1, 2, …
        rows: one for each budget and competitor.
        costs: one for each competitor.
    """

    plan: Plan
    subject: Subject
    searches: Mapping[str, Sequence[Found]]
    rows: Sequence[Row]
    costs: Sequence[Cost]

    @property
    def title(self) -> str:
        return f"{self.subject.space} on {self.subject.task}"

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws mean curves with bands to a file. Raises ValueError where it cannot."""
        from automl.benching.plot import plot
        from automl.pictures import check_plot

        check_plot(Path(path))
        plot(self.searches, self.plan.children, self.subject.optimum, self.title, Path(path))


def bench(
    *,
    controllers: str | Sequence[str],
    budgets: str | Sequence[int] = (25, 50, 100, 200),
    seeds: int = 20,
    to: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    set: Sequence[str] = (),
    progress: Progress = lambda competitor, seed, found, done, count: None,
    **shared: Any,
) -> BenchResult:
    """Compares controllers at equal budgets over many seeds.

    Each competitor and seed is a search of its own in a store beside `to`, with `workers=0`. Called again with the same
    `to`, it runs only what is missing: more seeds, larger budgets and other controllers may be asked for.

    Args:
        controllers: `NAME`, `NAME:PRESET` or `FILE.py:CLASS`, each also as `LABEL=…`; a text has commas between them.
        budgets: numbers of trained children after which searches are compared.
        seeds: the number of seeds, which are 0, 1, 2, …
        to: JSON file with all that was found. None keeps nothing.
        jobs: searches at a time, each in a process of its own; 1 is in this process, None is one per core. A script
            that asks for more than one calls this under `if __name__ == "__main__":`, as `multiprocessing` needs.
        set: `space.NAME=VALUE`, `task.NAME=VALUE`, or `LABEL.NAME=VALUE` for an option of one controller.
        progress: called after each search.
        shared: options of the searches, `BENCH_OPTIONS`, for example `space` and `task`.

    Raises:
        ValueError: an option is unknown or has a bad value, or the file is of a bench with other settings.
        RuntimeError: a search ended before it had trained its children.
    """
    plan = Plan.make(controllers, budgets=budgets, seeds=seeds, set=set, **shared)
    count = check_jobs(len(os.sched_getaffinity(0)) if jobs is None else jobs)
    path = None if to is None else Path(to)
    if path is not None:
        check_folder(path)
    subject = plan.check()
    kept = _kept(plan, subject, path)
    with _store(path) as store:
        found = _run(plan, subject, kept, store, count, path, progress)
    searches = {one.label: [found[one.label][seed] for seed in range(plan.seeds)] for one in plan.competitors}
    rows, costs = rows_of(searches, plan.budgets, subject.optimum), costs_of(searches)
    result = BenchResult(plan, subject, searches, rows, costs)
    if path is not None:
        _save(path, plan, subject, found, result)
    return result


Searches = dict[str, dict[int, Found]]  # by label and seed


def _run(
    plan: Plan, subject: Subject, kept: Searches, store: str, jobs: int, path: Path | None, progress: Progress
) -> Searches:
    found: Searches = {one.label: dict(kept.get(one.label, {})) for one in plan.competitors} | kept
    wanted = [(one, seed) for seed in range(plan.seeds) for one in plan.competitors]
    missing = [(one, seed) for one, seed in wanted if not _is_whole(found[one.label].get(seed), plan.children)]
    done = len(wanted) - len(missing)
    if not missing:
        return found
    jobs_of = {
        Job(one.search_name(seed), store, plan.options_of(one) | {"seed": seed}, plan.children, subject.noiseless): (
            one,
            seed,
        )
        for one, seed in missing
    }
    if path is not None:
        _save(path, plan, subject, found, None)  # the store's searches have these settings from now on
    saved = time.monotonic()
    try:
        for job, result in _results(list(jobs_of), min(jobs, len(missing))):
            one, seed = jobs_of[job]
            found[one.label][seed] = result
            done += 1
            if path is not None and time.monotonic() > saved + SAVE_EVERY:
                _save(path, plan, subject, found, None)
                saved = time.monotonic()
            progress(one, seed, result, done, len(wanted))
    finally:
        if path is not None:
            _save(path, plan, subject, found, None)
            if not _store_path(path).exists():  # no search has begun, so other settings may follow
                path.unlink()
    return found


def _results(jobs: Sequence[Job], count: int) -> Iterator[tuple[Job, Found]]:
    """What the jobs found, as they end: in so many processes, or in this one."""
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


def _is_whole(found: Found | None, children: int) -> bool:
    return found is not None and (len(found.rewards) >= children or found.exhausted)


@contextlib.contextmanager
def _store(path: Path | None) -> Iterator[str]:
    """The address of the store of the searches: beside the file, or one that is thrown away."""
    if path is not None:
        yield str(_store_path(path))
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder) / "bench.db")


def _store_path(path: Path) -> Path:
    return path.absolute().with_name(f"{path.name}.db")


def _kept(plan: Plan, subject: Subject, path: Path | None) -> Searches:
    """What earlier calls found. Raises ValueError where the file is of a bench with other settings."""
    if path is None:
        return {}
    if not path.exists():
        if (store := _store_path(path)).exists():
            raise ValueError(
                f"{store} has the searches of a bench whose file {path} is gone; delete it, or name another file with "
                "--to."
            )
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError
        settings, competitors = dict(stored["settings"]), dict(stored["controllers"])
        searches = {
            label: {int(seed): Found(**found) for seed, found in of_label.items()}
            for label, of_label in stored["searches"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is no bench of this version of automl; name another file with --to.") from None
    _check_same(path, "the searches", settings, plan.identity(subject))
    for one in plan.competitors:
        if one.label in competitors:
            _check_same(path, one.label, competitors[one.label], plan.identity_of(one))
    return searches


def _check_same(path: Path, what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = next((name for name in [*was, *now] if was.get(name) != now.get(name)), None)
    if changed is not None:
        raise ValueError(
            f"{path} is a bench with other settings of {what}: {changed} was {was.get(changed)!r} and is "
            f"{now.get(changed)!r}; put it back, or name another file with --to."
        )


def _save(path: Path, plan: Plan, subject: Subject, found: Searches, result: BenchResult | None) -> None:
    written: dict[str, Any] = {
        "format": FORMAT,
        "settings": plan.identity(subject),
        "controllers": _controllers(path, plan),
        "searches": {
            label: {str(seed): one.to_json() for seed, one in sorted(of_label.items())}
            for label, of_label in found.items()
            if of_label
        },
    }
    if result is not None:
        written |= {
            "subject": dataclasses.asdict(result.subject),
            "rows": [to_json(row) for row in result.rows],
            "costs": [to_json(cost) for cost in result.costs],
        }
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(written) + "\n", encoding="utf-8")
    partial.replace(path)


def _controllers(path: Path, plan: Plan) -> dict[str, Any]:
    """The settings of the competitors by label, those of earlier calls too."""
    earlier = json.loads(path.read_text(encoding="utf-8"))["controllers"] if path.exists() else {}
    return earlier | {one.label: plan.identity_of(one) for one in plan.competitors}


def line_of(competitor: Competitor, seed: int, found: Found) -> str:
    """What a search found, in one line."""
    children = counted(len(found.rewards), "child", "children")
    return f"{competitor.label}, seed {seed}: {max(found.rewards):.4f} after {children} ({found.seconds:.0f} s)"
