"""The commands `search`, `resume`, `delete` and `retry`."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any

from automl.child_trainers.gpus import visible_gpus
from automl.cli import startup
from automl.cli.commands import further_command, resume_command, retry_command
from automl.cli.data import report_data
from automl.cli.interrupts import Interrupts
from automl.cli.streams import ignore_closed_output
from automl.cli.terminal import escaped, print
from automl.cli.time_check import TimeCheck
from automl.cli.views import View, make_view
from automl.db.records import SearchState, State
from automl.db.store import Store
from automl.donors.describing import donor_line
from automl.endings import Ending, Stop, StopNow
from automl.listeners.dispatch import Listeners
from automl.machine import other_surroundings
from automl.paths import delete_files, store_address
from automl.preparation import Run
from automl.results import delete_arrays
from automl.resuming import Resume, prepare_resume
from automl.runtime import run_search, with_counts
from automl.searches import create, deleting_unless_started, make_ready, refuse_taken
from automl.settings.schema import SearchConfig
from automl.settings.stored import completed
from automl.settings.toml_file import SettingsFile
from automl.status import failures_text, is_interrupted
from automl.surroundings import workdir_notice, workdir_of, working_in
from automl.wording import counted
from automl.worker_plan import sharing_text


def start(name: str, store_option: str | None, config_file: Path | None, flags: dict[str, Any]) -> None:
    file = None if config_file is None else SettingsFile.read(config_file)
    locating_errors = contextlib.nullcontext if file is None else functools.partial(file.locating_errors, flags)
    with locating_errors():
        config = SearchConfig(**flags if file is None else file.overridden_by(flags))
    ignore_closed_output()
    with contextlib.closing(Store(store_address(store_option), create=True, deferred=True)) as store:
        refuse_taken(store, name)
        view = make_view(store, name)
        view.note(f"Preparing the search {name!r} in {store}")
        with view.preparing(), locating_errors():
            run = create(store, name, config, progress=view.download, stage=view.stage)
            startup.finish()
        with deleting_unless_started(store, name):
            with view.preparing():
                _describe(store, name, view)
            _run(store, name, run, view)


def resume(name: str, store_option: str | None, **changes: Any) -> None:
    ignore_closed_output()
    with contextlib.closing(Store(store_address(store_option), upgrade=True)) as store:
        prepared = prepare_resume(store, name, **changes)
        run = prepared.run
        view = make_view(store, name)
        search = store.search(name)
        interrupted = is_interrupted(store, search)
        if run.children is not None and search.num_trained >= run.children and not interrupted:
            print(
                f"{name} has trained {search.num_trained} of {counted(run.children, 'child', 'children')}; nothing was "
                f"changed. Go further with: {further_command(store, search)}"
            )
            return
        view.note(f"Resuming the search {name!r} in {store}")
        if (notice := workdir_notice(prepared.settings)) is not None:
            view.note(notice)
        if interrupted:
            num_running = store.counts(search.id)[State.RUNNING]
            verbs = ("was", "is") if num_running == 1 else ("were", "are")
            ran = f"; {counted(num_running, 'child', 'children')} that {verbs[0]} running {verbs[1]} trained again"
            view.note(f"It was interrupted: its process is gone{ran if num_running else ''}")
        for difference in other_surroundings(store, search):
            view.note(f"Children may differ in their last bits from those trained before: {difference}")
        startup.finish()
        _run(store, name, run, view, resume=prepared)


def remove(name: str, store_option: str | None, *, yes: bool) -> None:
    with contextlib.closing(Store(store_address(store_option))) as store:
        search = store.search(name)
        if not yes:
            children = counted(sum(store.counts(search.id).values()), "child", "children")
            if is_interrupted(store, search):
                children += f" (it was interrupted and can go on with: {resume_command(store, name)})"
            if not sys.stdin.isatty():
                raise ValueError(
                    f"Deleting {name!r} with its {children} needs --yes, since standard input is not a terminal."
                )
            if input(f"Delete {escaped(repr(name))} with its {children}? [y/N] ").strip().lower() not in ("y", "yes"):
                print("Nothing was deleted.")
                return
        startup.finish()
        store.delete(name)
        delete_arrays(store, name)
        delete_files(store, name)
        print(f"Deleted {name}.")


def retry(name: str, store_option: str | None, *, fault: str | None, child: int | None) -> None:
    with contextlib.closing(Store(store_address(store_option), upgrade=True)) as store:
        ready = make_ready(store, name, fault=fault, number=child)
        if not ready:
            what = "child has failed" if fault is None else f"child has failed with {fault}"
            print(f"No {what}; nothing was changed.")
            return
        few = f": {', '.join(map(str, ready))}" if len(ready) <= 20 else ""
        are = "is" if len(ready) == 1 else "are"
        print(f"{counted(len(ready), 'child', 'children')} of {name} {are} ready again{few}.")
        print(f"Train them with: {further_command(store, store.search(name))}")


def _describe(store: Store, name: str, view: View) -> None:
    """Prints how children will be trained, so that the user does not take a quick search for a full one."""
    from automl.child_trainers.experiment import make_space, make_task, reward_definition

    search = store.search(name)
    settings = completed(search.settings)
    with working_in(workdir_of(settings)):
        task = make_task(settings)
        constants, unused = task.describe(), task.unused_options(make_space(settings).survey()[0].spec)
    used = ", ".join(f"{key} {value}" for key, value in constants.items() if value is not None and key not in unused)
    view.note(f"Space {search.space}, task {search.task}, controller {search.controller}, seed {search.seed}")
    view.note(f"Reward: {reward_definition(settings)}")
    if used:
        view.note(f"Each child: {used}")
    if (sharing := sharing_text(settings)) is not None:
        view.note(sharing)
    for donor in store.donors(search.id):
        view.note(f"Learns from {donor_line(donor)}")


def _run(
    store: Store,
    name: str,
    run: Run,
    view: View,
    *,
    resume: Resume | None = None,
) -> None:
    stop = Stop()
    try:
        with Interrupts(stop, run.time, inline=run.workers == 0), view.live():
            ending = run_search(
                store,
                name,
                run,
                stop,
                resume=resume,
                listeners=Listeners([*_time_check(store, name, run, view, stop), view]),
                on_data=lambda summary: report_data(summary, view.note, warnings=resume is None),
                progress=view.download,
                stage=view.stage,
            )
    except StopNow:  # before the search had its lease
        ending = with_counts(store, name, Ending(SearchState.PAUSED, stop.cause))
    except KeyboardInterrupt:
        print(f"Stopped at once. Go on with: {resume_command(store, name)}")
        raise
    _conclude(store, name, ending, view)


def _time_check(store: Store, name: str, run: Run, view: View, stop: Stop) -> list[TimeCheck]:
    """The listener that checks the first children of a run with a time limit; empty for a run without one."""
    limit = run.time
    if limit is None or visible_gpus():  # a GPU's speed is not known before the first child
        return []

    def constants() -> dict[str, Any]:
        from automl.child_trainers.experiment import make_task

        return make_task(completed(store.search(name).settings)).describe()

    return [TimeCheck(store, name, constants, lambda: limit - stop.age, view.note, workers=run.workers)]


def _conclude(store: Store, name: str, ending: Ending, view: View) -> None:
    command = resume_command(store, name)
    search = store.search(name)
    view.result()
    failures = store.failures(search.id)
    if failed := failures_text(failures):
        print(f"{failed}.")
        print(f"Once the cause is fixed, make them ready again with: {retry_command(store, name)}")
    if ending.state == SearchState.PAUSED:
        print(f"Paused: {ending.cause}")
        print(f"Go on with: {command}")
    elif ending.state == SearchState.EXHAUSTED:
        print(f"{'Done' if ending.ok else 'Ended'}: {ending.cause}.")
    else:
        print(f"Done: {counted(search.num_trained, 'child', 'children')} trained.")
        print(f"Go further with: {further_command(store, search)}")
    if not ending.ok:
        sys.exit(ending.exit_code)
