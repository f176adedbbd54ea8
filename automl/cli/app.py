"""The command `automl`: its commands and their flags. A command imports what it needs when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.arguments import Data, DataDir, JsonOption, Name, StoreOption, Workdir
from automl.cli.comparisons import bench, compare_optimizers
from automl.cli.flags import Commands, GroupedCommand, with_flags
from automl.cli.terminal import print
from automl.settings.schema import SearchConfig

EXIT_CODES = (
    "Exit codes: 0 done (the budget of children or time is used up, or the whole space is trained), 1 error, 2 wrong "
    "usage, 3 paused (by automl stop, a signal, or repeated failures), 4 ended without a trained child, or the whole "
    "space is proposed and some of its children failed, 130 interrupted by Ctrl-C."
)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Machines that design machine learning: start searches, resume them from the database, export their best "
    "children.",
    epilog=f"Every command takes --debug, which shows the traceback of an error. {EXIT_CODES}",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from automl import __version__

        print(f"automl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog=EXIT_CODES, cls=GroupedCommand)
@with_flags(SearchConfig.options())
def search(
    name: Name,
    *,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these options; flags override it.")] = None,
    store: StoreOption = None,
    **given: Any,
) -> None:
    """Start a search."""
    from automl.cli.search import start

    start(name, store, config, given)


@app.command(epilog=EXIT_CODES, cls=GroupedCommand)
@with_flags(SearchConfig.resumable(), resume=True)
def resume(
    name: Name,
    *,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Accept changes in a file of your own code.")
    ] = False,
    data: Data = None,
    store: StoreOption = None,
    **given: Any,
) -> None:
    """Resume a stopped search, or extend a finished one. Its settings come from the database."""
    from automl.cli.search import resume as resume_search

    resume_search(name, store, accept_change=accept_change, data=data, **given)


@app.command()
def retry(
    name: Name,
    fault: Annotated[
        str | None,
        typer.Option(help="Only children with this fault: raised, oom, timeout, crashed, …", show_default="all"),
    ] = None,
    child: Annotated[int | None, typer.Option("--child", help="Only the child with this number.")] = None,
    store: StoreOption = None,
) -> None:
    """Make failed and lost children ready again. Use it once their cause is fixed; `resume` trains them."""
    from automl.cli.search import retry as make_ready

    make_ready(name, store, fault=fault, child=child)


@app.command("list")
def list_searches(json: JsonOption = False, store: StoreOption = None) -> None:
    """List the searches of a store."""
    from automl.cli.look import print_list

    print_list(store, as_json=json)


@app.command()
def show(name: Name, json: JsonOption = False, store: StoreOption = None) -> None:
    """Show a search's settings, history and learned policy."""
    from automl.cli.look import print_show

    print_show(name, store, as_json=json)


@app.command()
def top(
    name: Name,
    number: Annotated[int, typer.Option("-n", min=1, help="Number of children.")] = 10,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """List the best trained children, best first."""
    from automl.cli.look import print_top

    print_top(name, store, number, as_json=json)


@app.command()
def watch(name: Name, store: StoreOption = None) -> None:
    """Watch a running search from another terminal."""
    from automl.cli.watch import watch as watch_search

    watch_search(name, store)


@app.command()
def logs(
    name: Name,
    child: Annotated[int, typer.Argument(help="Number of the child.")],
    store: StoreOption = None,
) -> None:
    """Print the output of each attempt at a child."""
    from automl.cli.watch import print_logs

    print_logs(name, child, store)


@app.command()
def stop(name: Name, store: StoreOption = None) -> None:
    """Stop a search that another process runs."""
    from automl.cli.watch import stop as stop_search

    stop_search(name, store)


@app.command()
def propose(
    name: Name,
    spec: Annotated[
        Path | None, typer.Option(help="File with a spec as export writes it, with decisions, or with an update rule.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="The child's tokens: 0,2,1,…")] = None,
    store: StoreOption = None,
) -> None:
    """Propose a child of your own to a search."""
    from automl.cli.propose import propose_child

    propose_child(name, store, spec=spec, tokens=tokens)


@app.command()
def train(
    name: Name,
    child: Annotated[int | None, typer.Option("--child", help="Number of the child.", show_default="the best")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the task.", show_default="the longest")] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set one constant of the recipe: epochs=30.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of trainings, each from other initial weights.")] = 3,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="all")] = None,
    json: JsonOption = False,
    data: Data = None,
    workdir: Workdir = None,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Retrain a child with a full recipe and several seeds. After a stop, the same command continues."""
    from automl.cli.train import train as train_child

    train_child(
        name,
        store,
        child=child,
        recipe=recipe,
        options=set or [],
        seeds=seeds,
        threads=threads,
        data_dir=data_dir,
        data=data,
        workdir=workdir,
        as_json=json,
    )


@app.command()
def export(
    name: Name,
    format: Annotated[
        str, typer.Option("--format", help="Format: json, python, svg, dot, keras, savedmodel, tflite, onnx.")
    ],
    to: Annotated[Path, typer.Option("--to", help="File to write; for savedmodel, the folder.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Origin of the weights: search, train.", show_default="train, if retrained"),
    ] = None,
    child: Annotated[int | None, typer.Option("--child", help="Number of the child.", show_default="the best")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    data: Data = None,
    workdir: Workdir = None,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Export a child as record, source, drawing or model. A model reproduces the stored metric."""
    from automl.cli.export import write

    write(
        name, store, format, to, child=child, source=source, force=force, data_dir=data_dir, data=data, workdir=workdir
    )


app.command("compare-optimizers")(compare_optimizers)
app.command(cls=GroupedCommand)(bench)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    store: StoreOption = None,
) -> None:
    """Delete a search with its children, weights and logs."""
    from automl.cli.search import remove

    remove(name, store, yes=yes)


@app.command()
def doctor(json: JsonOption = False, data_dir: DataDir = None, store: StoreOption = None) -> None:
    """Check the installation, the data and the store. Of each search, say what a resume would do."""
    from automl.cli.look import print_doctor

    print_doctor(store, data_dir, as_json=json)


def main() -> None:
    """Runs the command line. An error is printed as one sentence; --debug shows its traceback."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        from automl.db.records import StoreError

        expected = isinstance(error, ValueError | StoreError | ImportError)
        text = " ".join(str(error).split()) or type(error).__name__
        print(
            f"Error: {text if expected else f'{type(error).__name__}: {text} (--debug shows the traceback)'}",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
