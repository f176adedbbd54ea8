"""The paths of a command's store and of the files of its searches. Imports nothing slow."""

from __future__ import annotations

import os
from pathlib import Path

from automl.child_trainers.artefacts import Artefacts, FolderArtefacts
from automl.db.engine import address_text
from automl.db.records import (
    Search,
    State,
    StoreError,
    is_search_name,
)
from automl.db.store import Store

DEFAULT_STORE = "automl.db"


def store_address(given: str | os.PathLike[str] | None) -> str:
    """The address of the store: the argument, else AUTOML_STORE, else `automl.db` in the current folder.

    Raises:
        StoreError: the argument is empty (for example an unset shell variable), or neither text nor a path.
    """
    return (os.environ.get("AUTOML_STORE") or DEFAULT_STORE) if given is None else address_text(given)


def open_store(address: str | os.PathLike[str] | None = None) -> Store:
    """Opens a store read-only. Raises StoreError if there is none."""
    return Store(store_address(address), readonly=True)


def artefacts_of(store: Store, name: str) -> FolderArtefacts:
    """The logs and checkpoints of a search: beside a SQLite store, else in the user's folder for logs, one for each
    database.

    Raises:
        StoreError: the name, which may be from another user's store, is not valid as the name of a folder.
    """
    check_stored_name(name)
    if store.file is not None:
        return FolderArtefacts(store.file.with_name(f"{store.file.name}.logs") / name)
    import platformdirs

    return FolderArtefacts(Path(platformdirs.user_log_dir("automl")) / store.folder_name / name)


def check_name(name: str) -> str:
    """Returns the name of a search. Raises ValueError if it is not valid, also as the name of a folder."""
    if not is_search_name(name):
        raise ValueError(
            f"{name!r} cannot name a search; use up to 100 letters, digits, '.', '_' and '-', beginning with a letter "
            "or digit."
        )
    return name


def check_stored_name(name: str) -> None:
    """Raises StoreError if a search in a store has an invalid name."""
    if not is_search_name(name):
        raise StoreError(
            f"The store has a search called {name!r}, a name that automl never gives: it may lead to other folders, so "
            "nothing is read or written for it. It can be shown, and deleted from the store with automl delete."
        )


def delete_files(store: Store, name: str) -> None:
    """Deletes the logs and checkpoints of a search; deletes nothing if the name is not valid."""
    if is_search_name(name):
        artefacts_of(store, name).delete()


def drop_checkpoints(store: Store, search: Search, artefacts: Artefacts) -> None:
    """Deletes the checkpoints of failed and lost children, which the pool or the lease that ended them could not do."""
    if with_checkpoints := artefacts.with_checkpoints():
        ended = {child.number for child in store.children(search.id, states=[State.FAILED, State.LOST])}
        artefacts.drop_checkpoints(with_checkpoints & ended)
