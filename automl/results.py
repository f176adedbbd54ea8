"""The Python face: start, resume, look and export, with the command line's own parts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.export import export_child, model_of
from automl.loop import Ending, Stop
from automl.running import create, prepare_resume, run_search
from automl.settings import Asked
from db.records import Child, Search, State, StoreError
from db.store import Store

if TYPE_CHECKING:
    import keras
    import pandas

DEFAULT_STORE = "automl.db"


def store_address(given: str | None) -> str:
    """The store that was asked for: the argument, else AUTOML_STORE, else `automl.db` in the current folder."""
    return given or os.environ.get("AUTOML_STORE") or DEFAULT_STORE


def open_store(address: str | None = None) -> Store:
    """Opens a store for looking. Raises StoreError where there is none."""
    return Store(store_address(address), readonly=True)


def search(name: str, *, store: str | None = None, **asked: Any) -> Result:
    """Starts a search and runs it to its end.

    Takes the settings of `automl.settings.Asked` by name, for example `task="digits"`, `children=20`, `workers=0`.

    Raises:
        ValueError: a setting is unknown or wrong.
        NameTakenError: the name exists.
    """
    for key in ("set", "fix", "only"):
        if key in asked:
            asked[key] = tuple(asked[key])
    opened = Store(store_address(store), create=True)
    with contextlib.closing(opened):
        run = create(opened, name, Asked(**asked))
        ending = run_search(opened, name, run, Stop())
    return Result(name, store_address(store), ending)


def resume(name: str, *, store: str | None = None, **changes: Any) -> Result:
    """Goes on with a search, or further: takes `children`, `time`, `workers` and the rest of `prepare_resume`."""
    opened = Store(store_address(store))
    with contextlib.closing(opened):
        run, settings, changed = prepare_resume(opened, name, **changes)
        ending = run_search(opened, name, run, Stop(), settings=settings, changes=changed)
    return Result(name, store_address(store), ending)


@dataclasses.dataclass(frozen=True)
class Result:
    """A search as it stands in the store.

    Attributes:
        ending: how the run that returned this ended; None where none did.
    """

    name: str
    store: str
    ending: Ending | None = None

    @property
    def children(self) -> list[Child]:
        """All children in number order."""
        with contextlib.closing(open_store(self.store)) as store:
            return store.children(store.search(self.name).id)

    @property
    def best(self) -> BestChild:
        """The best trained child. Raises StoreError where none is trained yet."""
        with contextlib.closing(open_store(self.store)) as store:
            found = store.search(self.name)
            top = store.top(found.id, 1)
        if not top:
            raise StoreError(f"No child of {self.name!r} is trained yet.")
        return BestChild(self, found, top[0])

    def dataframe(self) -> pandas.DataFrame:
        """One row per child. Needs pandas."""
        import pandas

        rows: Sequence[dict[str, Any]] = [dataclasses.asdict(child) for child in self.children]
        return pandas.DataFrame(rows).set_index("number") if rows else pandas.DataFrame()

    def export(self, format: str, to: str | Path, *, child: int | None = None, force: bool = False) -> Path:
        """Writes a child (the best) in a format of `automl.export.EXPORTERS`; returns the path."""
        with contextlib.closing(open_store(self.store)) as store:
            return export_child(store, self.name, format, Path(to), number=child, force=force).path


@dataclasses.dataclass(frozen=True)
class BestChild:
    """The best child of a search, and what can be made of it."""

    result: Result
    search: Search
    child: Child

    @property
    def reward(self) -> float:
        assert self.child.state == State.TRAINED and self.child.reward is not None
        return self.child.reward

    def model(self) -> keras.Model:
        """The Keras model with its stored weights, from raw input. Raises StoreError where none were kept."""
        with contextlib.closing(open_store(self.result.store)) as store:
            return model_of(store, self.search, self.child)

    def export(self, format: str, to: str | Path, *, force: bool = False) -> Path:
        return self.result.export(format, to, child=self.child.number, force=force)
