"""Loads the space and the task of a stored search, for commands that do not run it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from automl.approval import check_approved
from automl.child_trainers.devices import without_native_lines
from automl.child_trainers.experiment import Experiment, make_experiment, make_space
from automl.child_trainers.user_files import UserFile
from automl.db.records import Child, Search
from automl.db.store import Store
from automl.search_spaces.recorded import ChildMismatchError, child_mismatch, decode_recorded
from automl.search_spaces.space import Space
from automl.search_spaces.walk import Walk
from automl.settings.stored import completed, may_download, with_data_dir
from automl.surroundings import with_data, with_kept_arrays, with_workdir, workdir_of, working_in


def load_experiment(
    search: Search,
    *,
    store: Store | None = None,
    data: str | None = None,
    **task_changes: Any,
) -> Experiment:
    """Makes the search's space and task. A user's file runs only if the user approved it on this machine.

    Args:
        store: the store of the search; arrays that were moved together with it are found.
        data: the present place of the search's data; see `with_data`.
        task_changes: settings of the task that replace the stored ones: `recipe`, `options`.
    """
    settings = with_data(_settings(search, ("space", "task")), data)
    if store is not None:
        settings = with_kept_arrays(store, search.name, settings)
    constants = {"constants": None} if "recipe" in task_changes else {}  # the stored ones belong to the stored recipe
    with without_native_lines():
        return make_experiment(
            {**settings, "task": {**settings["task"], **constants, **task_changes}},
            download=may_download(search.settings, None),
        )


def load_space(search: Search) -> Space:
    """Makes only the search's space, which needs no data."""
    with without_native_lines():
        return make_space(_settings(search, ("space",)))


def recorded_child(store: Store, search: Search, space: Space, child: Child) -> Walk:
    """The finished walk of a stored child. Raises ValueError if the space makes another child from its tokens."""
    catalogue = store.decisions(search.id) if child.decisions is not None else []
    decisions = None if child.decisions is None else [catalogue[number] for number in child.decisions]
    try:
        return decode_recorded(space, child.tokens, child.spec, decisions)
    except ChildMismatchError as error:
        raise ValueError(child_mismatch(child.number, error)) from None


def in_workdir(
    search: Search, given: str | None = None, *, missing_ok: bool = False
) -> contextlib.AbstractContextManager[None]:
    """A context in which the current folder is the one where the search's code runs.

    Args:
        given: this folder; None for that of the search.
        missing_ok: keep the current folder if that folder does not exist.
    """
    folder = workdir_of(with_workdir(completed(search.settings), given))
    return working_in(None if missing_ok and folder is not None and not os.path.isdir(folder) else folder)


def _settings(search: Search, groups: tuple[str, ...]) -> Mapping[str, Any]:
    settings = with_data_dir(completed(search.settings), None)
    for group in groups:
        if (file := UserFile.from_json(settings[group]["file"])) is not None:
            check_approved(file, name=search.name, flag=f"--{group}")
    return settings
