"""The command `automl`: its commands and their flags. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from automl.cli.terminal import print

EXIT_CODES = (
    "Exit codes: 0 done (the budget of children or time is used up, or the whole space is trained), 1 error, 2 wrong "
    "usage, 3 paused (by automl stop, a signal, or repeated failures), 4 ended without a trained child, or with all of "
    "the space proposed and some of its children failed, 130 interrupted by Ctrl-C."
)


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter:
            raise
        except Exception as error:
            option = getattr(error, "option_name", None)
            if option is None or (context := getattr(error, "ctx", None)) is None:
                raise
            from automl.search_spaces.names import nearest_first

            options = [name for one in context.command.params for name in one.opts if name.startswith("--")]
            error.message = f"There is no option {option!r}; there is {nearest_first(option, options)}."  # type: ignore[attr-defined]
            error.possibilities = None  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Commands,
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
Children = Annotated[int | None, typer.Option("--children", help="Children to train in all.")]
Time = Annotated[str | None, typer.Option("--time", help="Time for this start: 45s, 10m, 1.5h.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that train; 0: this one.", show_default="one per GPU, else cores / 2"),
]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Where data sets lie (or AUTOML_DATA).")]
Minimize = Annotated[str | None, typer.Option(metavar="METRIC", help="The reward is minus this metric.")]
Maximize = Annotated[str | None, typer.Option(metavar="METRIC", help="The reward is this metric.")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="PATH", help="Where the search's npz: or text: data are now.")
]
Workdir = Annotated[
    str | None,
    typer.Option("--workdir", metavar="DIR", help="Folder your own code runs in.", show_default="as the search began"),
]
KeepGoing = Annotated[bool | None, typer.Option("--keep-going", help="Do not pause when child after child fails.")]


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


@app.command(epilog=EXIT_CODES)
def search(
    name: Name,
    space: Annotated[
        str | None,
        typer.Option(help="convnet, recurrent-cell, update-rule, joint, or FILE.py:FUNCTION.", show_default="convnet"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Of the space: small, paper; extended.", show_default="the first")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, npz:PATH, ptb, pydoc, text:PATH, or FILE.py:FUNCTION.",
            show_default="the space's own",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Of the task; for cifar10: quick, paper; for texts: quick, small, paper.")
    ] = None,
    controller: Annotated[str | None, typer.Option(help="reinforce, ppo, random.", show_default="reinforce")] = None,
    controller_preset: Annotated[
        str | None, typer.Option(help="Of the controller: default, paper; paper-cells.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="GROUP.NAME=VALUE", help="One option: space.strides=true.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Fix decisions: 'layer*/filter_height=3'.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE,VALUE", help="Leave only these options.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the space: depth (grows as in the paper).")] = None,
    max_params: Annotated[str | None, typer.Option(help="Largest number of parameters: 300k.")] = None,
    max_flops: Annotated[str | None, typer.Option(help="Largest number of FLOPs for one example: 50M.")] = None,
    minimize: Minimize = None,
    maximize: Maximize = None,
    children: Annotated[
        int | None, typer.Option(help="Children to train in all.", show_default="100, or no end with --time")
    ] = None,
    time: Time = None,
    workers: Workers = None,
    threads: Annotated[int | None, typer.Option(help="Of each worker.", show_default="1")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.", show_default="0")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Children a controller step learns from.", show_default="8, or the preset's")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Batches in flight.", show_default="2, 1 with --workers 0, or the preset's")
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Keep weights of so many best children.", show_default="10")] = None,
    stall: Annotated[str | None, typer.Option(help="End a worker without a step for so long.")] = None,
    child_timeout: Annotated[str | None, typer.Option(help="Time that a child may take.")] = None,
    worker_memory: Annotated[
        str | None, typer.Option(help="Memory a worker may hold: 4G.", show_default="its share of the machine's")
    ] = None,
    recycle_after: Annotated[
        int | None, typer.Option(help="Children after which a worker is replaced.", show_default="1000")
    ] = None,
    recycle_growth: Annotated[
        str | None, typer.Option(help="Growth of memory at which it is earlier.", show_default="2G")
    ] = None,
    keep_going: KeepGoing = None,
    data_dir: DataDir = None,
    policy_device: Annotated[str | None, typer.Option(help="cpu, gpu.", show_default="cpu")] = None,
    early_stop: Annotated[
        str | None,
        typer.Option(help="Stop hopeless children: median, hyperband, asha, none.", show_default="median for quick"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of training: float32, bfloat16, float16.", show_default="the machine's fastest"),
    ] = None,
    xla: Annotated[bool | None, typer.Option("--xla", help="Compile training steps with XLA.")] = None,
    gpus_per_child: Annotated[
        int | None, typer.Option(help="GPUs that train one child together.", show_default="1")
    ] = None,
    workers_per_gpu: Annotated[
        int | None, typer.Option(help="Workers that share one GPU and its memory.", show_default="1")
    ] = None,
    workdir: Annotated[
        str | None,
        typer.Option("--workdir", metavar="DIR", help="Folder your own code runs in.", show_default="this one"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these; flags win.")] = None,
    store: StoreOption = None,
) -> None:
    """Start a search."""
    from automl.cli.search import start
    from automl.settings.schema import parse_count, parse_seconds

    given = {
        "space": space,
        "preset": preset,
        "task": task,
        "recipe": recipe,
        "controller": controller,
        "controller_preset": controller_preset,
        "set": tuple(set) if set else None,
        "fix": tuple(fix) if fix else None,
        "only": tuple(only) if only else None,
        "schedule": schedule,
        "max_params": None if max_params is None else parse_count(max_params),
        "max_flops": None if max_flops is None else parse_count(max_flops),
        "minimize": minimize,
        "maximize": maximize,
        "children": children,
        "time": None if time is None else parse_seconds(time),
        "workers": workers,
        "threads": threads,
        "seed": seed,
        "batch_size": batch_size,
        "replicas": replicas,
        "keep": keep,
        "stall": None if stall is None else parse_seconds(stall),
        "child_timeout": None if child_timeout is None else parse_seconds(child_timeout),
        "worker_memory": None if worker_memory is None else parse_count(worker_memory),
        "recycle_after": recycle_after,
        "recycle_growth": None if recycle_growth is None else parse_count(recycle_growth),
        "keep_going": keep_going,
        "data_dir": data_dir,
        "policy_device": policy_device,
        "early_stop": early_stop,
        "precision": precision,
        "xla": xla,
        "gpus_per_child": gpus_per_child,
        "workers_per_gpu": workers_per_gpu,
        "workdir": workdir,
    }
    start(name, store, config, {key: value for key, value in given.items() if value is not None})


@app.command(epilog=EXIT_CODES)
def resume(
    name: Name,
    children: Children = None,
    time: Time = None,
    workers: Workers = None,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP.NAME=VALUE", help="Change an option: controller.entropy=0.01, task.epochs=8."),
    ] = None,
    keep_going: KeepGoing = None,
    space: Annotated[str | None, typer.Option(help="FILE.py:FUNCTION: approve your own space here.")] = None,
    task: Annotated[
        str | None, typer.Option(help="FILE.py:FUNCTION: approve your own task here; npz:PATH, text:PATH: as --data.")
    ] = None,
    accept_change: Annotated[bool, typer.Option("--accept-change", help="Accept a changed file of yours.")] = False,
    minimize: Minimize = None,
    maximize: Maximize = None,
    data: Data = None,
    workdir: Workdir = None,
    data_dir: DataDir = None,
    store: StoreOption = None,
) -> None:
    """Go on with a search, or further, from the database alone."""
    from automl.cli.search import go_on
    from automl.settings.schema import parse_seconds

    go_on(
        name,
        store,
        children=children,
        time=None if time is None else parse_seconds(time),
        workers=workers,
        set=tuple(set) if set else (),
        keep_going=keep_going,
        space=space,
        task=task,
        accept_change=accept_change,
        minimize=minimize,
        maximize=maximize,
        data=data,
        workdir=workdir,
        data_dir=data_dir,
    )


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
