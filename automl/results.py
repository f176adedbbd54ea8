"""The Python face: start, resume, look and export, with the command line's own parts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl.export import export_child, model_of
from automl.loop import Ending, Stop
from automl.running import create, prepare_resume, run_search
from automl.settings import Asked
from child_trainers.experiment import known
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
    names = [field.name for field in dataclasses.fields(Asked)]
    for key, value in asked.items():
        known("setting", key, names)
        if isinstance(value, list):
            asked[key] = tuple(value)
    settings = Asked(**asked)
    with contextlib.closing(Store(store_address(store), create=True)) as opened:
        run = create(opened, name, settings)
        with _time_limit(run.time) as stop:
            ending = run_search(opened, name, run, stop)
    return Result(name, store_address(store), ending)


def resume(name: str, *, store: str | None = None, **changes: Any) -> Result:
    """Goes on with a search, or further: takes `children`, `time`, `workers` and the rest of `prepare_resume`."""
    with contextlib.closing(Store(store_address(store))) as opened:
        run, settings, changed = prepare_resume(opened, name, **changes)
        with _time_limit(run.time) as stop:
            ending = run_search(opened, name, run, stop, settings=settings, changes=changed)
    return Result(name, store_address(store), ending)


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[Stop]:
    """A stop that is requested when the time is over. A child that trains in this process is trained to its end."""
    stop = Stop()
    if seconds is None:
        yield stop
        return
    timer = threading.Timer(seconds, stop.request, ["the time that was given is over"])
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        timer.join()


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
