"""The commands that messages suggest to the user. Imports nothing slow, since `list` and `show` use it."""

from __future__ import annotations

import contextlib
import shlex
import sys

from automl.cli.terminal import print
from automl.db.records import Search
from automl.db.store import Store
from automl.paths import open_store, store_address


def open_for_reading(store_option: str | None) -> contextlib.closing[Store]:
    """Opens a store for reading. Prints a note if its newest changes may be missing."""
    store = open_store(store_option)
    if store.reading_note is not None:
        print(f"Note: {store.reading_note}", file=sys.stderr)
    return contextlib.closing(store)


def resume_command(store: Store, name: str) -> str:
    """The command that resumes a search. It names the store only if it is not the default one."""
    command = f"automl resume {shlex.quote(name)}"  # a name in a store may contain any character
    return command if store.address == store_address(None) else f"{command} {store.option}"


def interruption(store: Store, name: str) -> str:
    """The message for a search whose process is gone."""
    return f"{name} was interrupted: its process is gone. Go on with: {resume_command(store, name)}"


def retry_command(store: Store, name: str) -> str:
    """The command that makes failed children ready again."""
    return resume_command(store, name).replace("automl resume", "automl retry", 1)


def further_command(store: Store, search: Search) -> str:
    """The command that trains more children, whether or not the budget is reached."""
    command = resume_command(store, search.name)
    reached = search.budget is not None and search.num_trained >= search.budget
    return f"{command} --children {2 * search.num_trained}" if reached else command
