"""Prepares the resume of a search: computes and checks its changes to the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from automl.approval import approve, check_approved
from automl.child_trainers.outcome import Goal
from automl.child_trainers.registry import kind_of
from automl.child_trainers.user_files import UserFile, UserFileError
from automl.db.records import (
    Search,
    State,
)
from automl.db.store import Store
from automl.paths import check_stored_name
from automl.preparation import Run, user_files_of
from automl.settings.checks import check_data_dir
from automl.settings.schema import SearchConfig, goal_of
from automl.settings.stored import changeable_options, completed, with_data_dir
from automl.settings.stored_form import check_settings
from automl.surroundings import (
    current_folder,
    with_data,
    with_kept_arrays,
    with_workdir,
    working_in,
)
from automl.wording import counted


@dataclasses.dataclass(frozen=True)
class Resume:
    """A prepared resume.

    Attributes:
        search: the search as it was read.
        run: the budgets and workers of this run.
        settings: the settings of the search, with the changes of this resume.
        changes: the changed settings, for the segment.
        arguments: those of `resumed`, which are applied again under the lease; None for the first run of a new search.
        folder: the current folder of the command, to which relative paths in the arguments refer.
    """

    search: Search
    run: Run
    settings: dict[str, Any]
    changes: dict[str, Any]
    arguments: Mapping[str, Any] | None
    folder: str | None = None

    def again(self, store: Store) -> Resume:
        """Prepares the same resume for the present settings of the search. Raises as `prepare_resume` does."""
        if self.arguments is None:
            return as_created(store.search(self.search.name), self.run)
        with working_in(self.folder):
            return prepare_resume(store, self.search.name, **self.arguments)


def prepare_resume(store: Store, name: str, **arguments: Any) -> Resume:
    """Prepares the resume of a search.

    Args:
        arguments: those of `resumed`.

    Raises:
        UnknownSearchError: no search has this name.
        UserFileError: a file of the user's is missing, changed, or not approved.
        ValueError: an argument has a bad value, or does not fit the search.
    """
    search = store.search(name)
    check_stored_name(search.name)
    options = SearchConfig.resumable()
    given = {key: value for key, value in arguments.items() if key in options and value is not None}
    given = SearchConfig.read(given)
    SearchConfig.check(given)
    arguments |= given
    return Resume(search, *resumed(store, search, **arguments), arguments, current_folder())


def resumed(
    store: Store,
    search: Search,
    *,
    children: int | None = None,
    time: float | None = None,
    workers: int | None = None,
    set: Sequence[str] = (),
    space: str | None = None,
    task: str | None = None,
    controller: str | None = None,
    data_dir: str | None = None,
    keep_going: bool | None = None,
    accept_change: bool = False,
    minimize: str | None = None,
    maximize: str | None = None,
    data: str | None = None,
    workdir: str | None = None,
) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """Applies the arguments of a resume to the settings of a search.

    Without arguments, a resume repeats the last budgets. `set` changes options of the task and the controller. `space`,
    `task` and `controller` approve the user's files on this machine. `minimize` and `maximize` set the metric of the
    reward as long as no child is trained; children that failed because it was not set are trained again. `data`, or
    `task` as `npz:PATH` or `text:PATH`, is the present place of the search's data. `workdir` is the folder in which the
    user's code runs.

    Returns:
        The run, the new settings, and the changed ones by name.

    Raises:
        UserFileError: a file of the user's is missing, changed, or not approved.
        ValueError: an argument has a bad value, or does not fit the search.
    """
    name = search.name
    check_settings(search.settings, started=True)
    settings = completed(search.settings)
    last = Run(**settings["run"])
    run = Run(
        children if children is not None else last.children,
        time if time is not None else last.time,
        workers if workers is not None else last.workers,
    )
    changes: dict[str, Any] = {}
    flag, stored_task = "--data", settings["task"]["name"]
    if task is not None and kind_of(task) != task:
        data, task, flag = task, None, "--task"
    settings = with_kept_arrays(store, name, settings) if data is None else with_data(settings, data, flag=flag)
    if settings["task"]["name"] != stored_task:
        changes["task.data"] = settings["task"]["name"]
    settings = with_workdir(settings, workdir)
    if workdir is not None:
        changes["workdir"] = settings["workdir"]
    check_data_dir(data_dir, settings)
    if accept_change and not user_files_of(settings):
        raise ValueError(f"The search {name!r} uses no file of yours; drop --accept-change.")
    for group, options in changeable_options(set).items():
        settings[group] = {**settings[group], "options": settings[group]["options"] | options}
        changes |= {f"{group}.{option}": value for option, value in options.items()}
    for group, given in (("space", space), ("task", task), ("controller", controller)):
        stored = UserFile.from_json(settings[group].get("file"))
        file = _approved(name, group, stored, given, accept_change=accept_change)
        if file is not None and file != stored:
            settings[group] = {**settings[group], "name": f"{file.path}:{file.attribute}", "file": file.to_json()}
            changes[f"{group}.file"] = {"path": file.path, "sha256": file.sha256}
    before = settings["task"]["data_dir"]
    settings = with_data_dir(settings, data_dir)
    if settings["task"]["data_dir"] != before:
        changes["task.data_dir"] = settings["task"]["data_dir"]
    if (goal := goal_of(minimize, maximize)) is not None and goal != settings["task"]["goal"]:
        _check_goal_is_open(store, search, settings)
        settings["task"] = {**settings["task"], "goal": goal}
        changes["task.goal"] = goal
    if keep_going is not None and keep_going != settings["keep_going"]:
        settings["keep_going"] = changes["keep_going"] = keep_going
    settings["run"] = dataclasses.asdict(run)
    return run, settings, changes


def _check_goal_is_open(store: Store, search: Search, settings: Mapping[str, Any]) -> None:
    """Raises ValueError if children are trained: their rewards are not comparable with those of another metric."""
    trained = store.counts(search.id)[State.TRAINED]
    if trained:
        goal = settings["task"]["goal"]
        by = "the reward that the task returned" if goal is None else str(Goal(**goal))
        raise ValueError(
            f"{counted(trained, 'child', 'children')} of {search.name!r} {'was' if trained == 1 else 'were'} trained "
            f"with {by}, and rewards would not be comparable; start a new search to use another metric."
        )


def as_created(search: Search, run: Run) -> Resume:
    """The first run of a new search, which changes no settings."""
    check_stored_name(search.name)
    return Resume(search, run, completed(search.settings), {}, None)


def _approved(
    name: str, group: str, stored: UserFile | None, given: str | None, *, accept_change: bool
) -> UserFile | None:
    """The user's file that a resume will run, or None for a part that uses none. Raises UserFileError."""
    flag = f"--{group}"
    if stored is None:
        if given is not None:
            raise ValueError(f"The search {name!r} uses no file of yours as its {group}; drop {flag}.")
        return None
    if given is None:
        check_approved(stored, name=name, flag=flag)
        if not accept_change:
            stored.check_unchanged()
            return stored
    file = UserFile.read(given or f"{stored.path}:{stored.attribute}")
    if file.sha256 != stored.sha256 and not accept_change:
        raise UserFileError(
            f"{file.path} is not the text that the search began with (sha256 {stored.sha256[:12]}, now "
            f"{file.sha256[:12]}); put the old text back, or accept the new one with --accept-change."
        )
    approve(file)
    return file
