"""Which store a command means. Imports nothing slow: a look at a store is to be quick."""

from __future__ import annotations

import os

from db.engine import address_text
from db.store import Store

DEFAULT_STORE = "automl.db"


def store_address(given: str | os.PathLike[str] | None) -> str:
    """The store that was asked for: the argument, else AUTOML_STORE, else `automl.db` in the current folder.

    Raises:
        StoreError: the argument is empty (such as an unset shell variable) or not a path.
    """
    return (os.environ.get("AUTOML_STORE") or DEFAULT_STORE) if given is None else address_text(given)


def open_store(address: str | os.PathLike[str] | None = None) -> Store:
    """Opens a store for looking. Raises StoreError where there is none."""
    return Store(store_address(address), readonly=True)
