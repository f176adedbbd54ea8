"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automl.benching.bench import BenchResult, bench, line_of
from automl.benching.plan import Competitor
from automl.benching.searches import Found
from automl.benching.summary import Mean, to_json
from automl.cli import startup
from automl.cli.streams import ignore_closed_output
from automl.cli.tables import print_table
from automl.cli.terminal import print, print_json
from automl.pictures import check_folder, check_plot
from automl.wording import counted, format_number


def compare_controllers(
    *,
    controllers: str,
    seeds: int,
    budgets: str,
    jobs: int | None,
    to: Path | None,
    picture: Path | None,
    as_json: bool,
    **shared: Any,
) -> None:
    ignore_closed_output()
    if to is not None:
        check_folder(to)
    if picture is not None:
        check_plot(picture)

    def progress(competitor: Competitor, seed: int, found: Found, done: int, count: int) -> None:
        if not as_json:
            print(f"{done}/{count} {line_of(competitor, seed, found)}", flush=True)

    startup.finish()
    result = bench(controllers=controllers, budgets=budgets, seeds=seeds, to=to, jobs=jobs, progress=progress, **shared)
    if picture is not None:
        result.plot(picture)
    if as_json:
        print_json({"rows": [to_json(row) for row in result.rows], "costs": [to_json(cost) for cost in result.costs]})
        return
    _print(result)


def _print(result: BenchResult) -> None:
    best = "" if result.subject.optimum is None else f", optimum {format_number(result.subject.optimum)}"
    print(f"{result.title}{best}")
    print(f"Mean of {counted(result.plan.seeds, 'seed')}, with its 95 % confidence interval")
    if result.subject.optimum is None:
        cells = [[str(row.budget), row.competitor, *_cells(row.best)] for row in result.rows]
        print_table(["children", "controller", "best reward", "95 %"], cells)
    else:
        cells = [
            [
                str(row.budget),
                row.competitor,
                format_number(row.best.mean),
                *_cells(row.regret or row.best),
                f"{row.optimal or 0.0:.0%}",
            ]
            for row in result.rows
        ]
        print_table(["children", "controller", "best", "regret", "95 %", "optimal"], cells, drop=("best", "optimal"))
    print()
    costs = [
        [
            cost.competitor,
            "-" if cost.milliseconds is None else f"{cost.milliseconds:.1f}",
            "-" if cost.children_per_second is None else f"{cost.children_per_second:.1f}",
        ]
        for cost in result.costs
    ]
    print_table(["controller", "its ms per child", "children per second"], costs)


def _cells(mean: Mean) -> list[str]:
    interval = "-" if mean.low is None or mean.high is None else f"{mean.low:.4g} to {mean.high:.4g}"
    return [format_number(mean.mean), interval]
