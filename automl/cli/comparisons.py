"""The commands that compare optimizers and controllers. They import their modules when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.arguments import DataDir, JsonOption, StoreOption
from automl.cli.flags import with_flags
from automl.settings.schema import BENCH_OPTIONS, SearchConfig


def compare_optimizers(
    optimizers: Annotated[
        list[str] | None, typer.Argument(help="Update rules by name or as text, and Keras optimizers such as Adam.")
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", help="JSON file of the results. If it exists, the comparison continues.")
    ] = Path("comparison.json"),
    search: Annotated[str | None, typer.Option("--from", help="Also compare the best rules of this search.")] = None,
    best: Annotated[int, typer.Option("--best", min=1, help="Number of rules to take from that search.")] = 3,
    task: Annotated[str, typer.Option(help="Task: digits, cifar10, npz:PATH, ptb, pydoc, text:PATH.")] = "digits",
    network: Annotated[
        str | None,
        typer.Option(help="Network: small, resnet20, FILE.py:FUNCTION; for text: lstm.", show_default="small, or lstm"),
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set one constant of the task's recipe: epochs=10.")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(help="Learning rates to try, with commas between them.", show_default="1e-5,…,10")
    ] = None,
    sweep_epochs: Annotated[int, typer.Option("--sweep-epochs", help="Epochs of training at each rate.")] = 1,
    seeds: Annotated[
        int, typer.Option(help="Number of trainings at the best rate, each from other initial weights.")
    ] = 3,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Train on the last images; a search trains on the first ones.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Number of processes.", show_default="one per core")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Plot of the curves to write: FILE.svg, FILE.png.")
    ] = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Compare update rules and Keras optimizers. A sweep finds the best learning rate of each."""
    from automl.cli.compare import compare_optimizers as compare

    compare(
        optimizers or [],
        store,
        search=search,
        best=best,
        task=task,
        network=network,
        options=set or [],
        rates=rates,
        sweep_epochs=sweep_epochs,
        seeds=seeds,
        unseen=unseen,
        workers=workers,
        data_dir=data_dir,
        to=to,
        picture=plot,
        as_json=json,
    )


@with_flags({name: SearchConfig.options()[name] for name in BENCH_OPTIONS})
def bench(
    *,
    controllers: Annotated[
        str, typer.Option(help="Competitors: NAME, NAME:PRESET or FILE.py:CLASS, each also as LABEL=…; with commas.")
    ],
    seeds: Annotated[int, typer.Option(help="Searches of each competitor.")] = 20,
    budgets: Annotated[str, typer.Option(help="Numbers of trained children to compare at.")] = "25,50,100,200",
    top: Annotated[
        str | None, typer.Option(help="Report the means of this many best rewards.", show_default="1,5,15")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Searches at a time.", show_default="one per core")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="JSON file of the results. If it exists, the bench continues.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Picture of the curves: FILE.svg, FILE.png.")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP.NAME=VALUE", help="An option of space, task or one competitor: ppo.clip=0.1."),
    ] = None,
    json: JsonOption = False,
    **given: Any,
) -> None:
    """Compare controllers at equal budgets over many seeds."""
    from automl.cli.bench import compare_controllers

    compare_controllers(
        controllers=controllers,
        seeds=seeds,
        budgets=budgets,
        top=top,
        jobs=jobs,
        to=to,
        picture=plot,
        as_json=json,
        set=set or [],
        **given,
    )
