"""The command `automl`: its commands and their flags. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from automl.cli.flags import Commands, GroupedCommand, flag, with_flags
from automl.cli.terminal import print
from automl.settings.schema import SearchConfig

EXIT_CODES = (
    "Exit codes: 0 done (the budget of children or time is used up, or the whole space is trained), 1 error, 2 wrong "
    "usage, 3 paused (by automl stop, a signal, or repeated failures), 4 ended without a trained child, or with all of "
    "the space proposed and some of its children failed, 130 interrupted by Ctrl-C."
)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Machines that design machine learning: start searches, resume them from the database, export the best.",
    epilog=f"Every command takes --debug: show where an error came from. {EXIT_CODES}",
)

Name = Annotated[str, typer.Argument(help="The search's name.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Database URL or SQLite file.", envvar="AUTOML_STORE", show_default="automl.db"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DataDir = Annotated[str | None, flag("data_dir")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="Where the search's npz: or text: data are now.")
]
Workdir = Annotated[str | None, flag("workdir", resume=True)]


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
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these; flags win.")] = None,
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
    accept_change: Annotated[bool, typer.Option("--accept-change", help="Accept a changed file of yours.")] = False,
    data: Data = None,
    store: StoreOption = None,
    **given: Any,
) -> None:
    """Go on with a search, or further, from the database alone."""
    from automl.cli.search import go_on

    go_on(name, store, accept_change=accept_change, data=data, **given)


@app.command()
def retry(
    name: Name,
    fault: Annotated[
        str | None,
        typer.Option(help="Only children with this fault: raised, oom, timeout, crashed, …", show_default="all"),
    ] = None,
    child: Annotated[int | None, typer.Option("--child", help="Only the child of this number.")] = None,
    store: StoreOption = None,
) -> None:
    """Make failed and lost children ready to be trained again, once the cause is fixed."""
    from automl.cli.search import retry as make_ready

    make_ready(name, store, fault=fault, child=child)


@app.command("list")
def list_searches(json: JsonOption = False, store: StoreOption = None) -> None:
    """List the searches of a store."""
    from automl.cli.look import print_list

    print_list(store, as_json=json)


@app.command()
def show(name: Name, json: JsonOption = False, store: StoreOption = None) -> None:
    """Show a search: settings, history, what the controller learned."""
    from automl.cli.look import print_show

    print_show(name, store, as_json=json)


@app.command()
def top(
    name: Name,
    number: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
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
    child: Annotated[int, typer.Argument(help="Its number.")],
    store: StoreOption = None,
) -> None:
    """Print what each attempt at a child printed."""
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
        Path | None, typer.Option(help="File: a spec as export writes it, decisions, or an update rule's text.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="The child's tokens: 0,2,1,…")] = None,
    store: StoreOption = None,
) -> None:
    """Queue a child of your own making for a search."""
    from automl.cli.propose import propose_child

    propose_child(name, store, spec=spec, tokens=tokens)


@app.command()
def train(
    name: Name,
    child: Annotated[int | None, typer.Option("--child", help="Its number.", show_default="the best")] = None,
    recipe: Annotated[str | None, typer.Option(help="Of the task.", show_default="its longest")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A constant of it: epochs=30.")] = None,
    seeds: Annotated[int, typer.Option(help="How often, each time from other weights.")] = 3,
    threads: Annotated[int | None, typer.Option(help="Of the processor.", show_default="all")] = None,
    json: JsonOption = False,
    data: Data = None,
    workdir: Workdir = None,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Train a child again with the full recipe and several seeds; stopped, it goes on where it was."""
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
    format: Annotated[str, typer.Option("--format", help="json, python, svg, dot, keras, savedmodel, tflite, onnx.")],
    to: Annotated[Path, typer.Option("--to", help="The file (for savedmodel the folder) to write.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Whose weights: search, train.", show_default="train, if there")
    ] = None,
    child: Annotated[int | None, typer.Option("--child", help="Its number.", show_default="the best")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    data: Data = None,
    workdir: Workdir = None,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Export a child: its record, readable Keras source, or a model that gives the stored metric."""
    from automl.cli.export import write

    write(
        name, store, format, to, child=child, source=source, force=force, data_dir=data_dir, data=data, workdir=workdir
    )


@app.command("compare-optimizers")
def compare_optimizers(
    optimizers: Annotated[
        list[str] | None, typer.Argument(help="Rules by name or as text, and classes of Keras such as Adam.")
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", help="JSON file that results are kept in; an existing one goes on.")
    ] = Path("comparison.json"),
    search: Annotated[str | None, typer.Option("--from", help="A search of rules: its best ones too.")] = None,
    best: Annotated[int, typer.Option("--best", min=1, help="How many of these.")] = 3,
    task: Annotated[str, typer.Option(help="digits, cifar10, npz:PATH, ptb, pydoc, text:PATH.")] = "digits",
    network: Annotated[
        str | None,
        typer.Option(help="small, resnet20, FILE.py:FUNCTION; for text: lstm.", show_default="small, or lstm"),
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A constant of the task's recipe: epochs=10.")
    ] = None,
    rates: Annotated[str | None, typer.Option(help="Learning rates to try.", show_default="1e-5,…,10")] = None,
    sweep_epochs: Annotated[int, typer.Option("--sweep-epochs", help="Epochs at each of them.")] = 1,
    seeds: Annotated[int, typer.Option(help="Trainings at the best rate, from other weights.")] = 3,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Train on the last images, where a search trained on the first.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes.", show_default="one per core")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Picture of the curves: FILE.svg, FILE.png.")] = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Compare update rules and Keras's optimizers, each at the best rate of a sweep of its own."""
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


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Delete a search with all that belongs to it."""
    from automl.cli.search import remove

    remove(name, store, yes=yes)


@app.command()
def doctor(json: JsonOption = False, data_dir: DataDir = None, store: StoreOption = None) -> None:
    """Say whether everything is well, and what a resume would do."""
    from automl.cli.look import print_doctor

    print_doctor(store, data_dir, as_json=json)


def main() -> None:
    """Runs the command line; an error is one sentence, unless --debug asks where it came from."""
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
            f"Error: {text if expected else f'{type(error).__name__}: {text} (--debug shows where)'}", file=sys.stderr
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
