"""The command `bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automl.benching.bench import BenchResult, bench, line_of
from automl.benching.plan import TOP, Competitor
from automl.benching.searches import History
from automl.benching.summary import FEW, Mean
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
    top: str | None,
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

    def progress(competitor: Competitor, seed: int, history: History, done: int, count: int) -> None:
        if not as_json:
            print(f"{done}/{count} {line_of(competitor, seed, history)}", flush=True)

    startup.finish()
    result = bench(
        controllers=controllers,
        budgets=budgets,
        seeds=seeds,
        top=TOP if top is None else top,
        to=to,
        jobs=jobs,
        progress=progress,
        **shared,
    )
    if picture is not None:
        result.plot(picture)
    if as_json:
        print_json(result.tables())
        return
    # Where rewards are noisy and the optimum is known, regret says more than the best rewards.
    _print(result, result.plan.top if top is not None or result.subject.optimum is None else ())
    if picture is not None:
        print(f"The curves are in {picture}.")


def _print(result: BenchResult, top: Sequence[int]) -> None:
    best = "" if result.subject.optimum is None else f", optimum {format_number(result.subject.optimum)}"
    print(f"{result.title}{best}")
    method = "Student's t" if result.plan.seeds < FEW else "bootstrap"
    interval = f", with its 95 % confidence interval ({method})" if result.plan.seeds > 1 else ""
    print(f"Mean of {counted(result.plan.seeds, 'seed')}{interval}")
    headings, cells = _rows(result, top)
    tops = [heading for heading in reversed(headings) if heading.startswith("top ")]
    print_table(headings, cells, drop=(*([] if result.subject.optimum is None else ["optimal", "best"]), *tops))
    measures = {"regret", *(f"top {k}" for k in top)}
    if result.subject.optimum is not None and result.subject.noiseless is None:
        measures.discard("top 1")  # the lead in regret is the same
    if leads := [lead for lead in result.leads if lead.measure in measures]:
        print()
        print(f"Lead of {leads[0].competitor} with the same seed; below 0 where it is worse")
        cells = [
            [str(lead.budget), lead.over, lead.measure, *_cells(lead.lead), str(lead.ahead), str(lead.behind)]
            for lead in leads
        ]
        headings = ["children", "over", "measure", "lead", "95 %", "ahead", "behind"]
        print_table(headings, cells, drop=("behind", "ahead"))
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


def _rows(result: BenchResult, top: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """The headings and the cells of the table of means. The best reward is the column of top 1."""
    more = [k for k in top if k > 1]
    known = result.subject.optimum is not None
    headings = ["children", "controller", *(["best", "regret", "95 %", "optimal"] if known else ["best", "95 %"])]
    cells = []
    for row in result.rows:
        if row.regret is not None:
            means = [format_number(row.best.mean), *_cells(row.regret), f"{row.optimal or 0.0:.0%}"]
        else:
            means = _cells(row.best)
        tops = [row.top[k] for k in more]
        of_top = ["-" if mean is None else format_number(mean.mean) for mean in tops]
        cells.append([str(row.budget), row.competitor, *means, *of_top])
    return [*headings, *(f"top {k}" for k in more)], cells


def _cells(mean: Mean) -> list[str]:
    interval = "-" if mean.low is None or mean.high is None else f"{mean.low:.4g} to {mean.high:.4g}"
    return [format_number(mean.mean), interval]
