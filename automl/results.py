"""The Python API: starts, resumes and inspects searches, and exports children, with the code of the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.child_trainers.data.summary import DataSummary
from automl.child_trainers.experiment import SESSION
from automl.child_trainers.user_files import UserFile
from automl.child_trainers.workers.pool import PoolMaker
from automl.child_views import child_columns
from automl.db import own_files
from automl.db.records import Child, Search, State, StoreError, is_search_name
from automl.db.store import Store
from automl.donors.describing import donor_line
from automl.endings import GIVEN_TIME_OVER, Ending, Stop
from automl.export import export_child
from automl.listeners.base import SearchListener
from automl.listeners.callbacks import OnChildEnd, Warnings
from automl.listeners.dispatch import Listeners
from automl.paths import check_name, open_store, store_address
from automl.resuming import prepare_resume, resumed
from automl.runtime import run_search
from automl.search_spaces.names import validate_choice
from automl.searches import create, deleting_unless_started, make_ready, refuse_taken
from automl.settings.schema import SearchConfig
from automl.surroundings import arrays_path, current_folder
from automl.trained_model import model_of

if TYPE_CHECKING:
    import keras
    import pandas

logger = logging.getLogger(__name__)
USER_CALLABLES = ("space", "task", "controller")  # settings that may be the user's own functions or class


def search(
    name: str,
    *,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    store: str | os.PathLike[str] | None = None,
    on_child_end: Callable[[Child], None] | None = None,
    listeners: Sequence[SearchListener] = (),
    pool: PoolMaker | None = None,
    **options: Any,
) -> Result:
    """Starts a search and runs it to its end.

    The options of docs/settings.md are keyword arguments, for example `task="digits"`, `children=20`, `time="10m"`.
    `space` and `task` may also be functions. Workers and a later `resume` import a module's function from its file;
    a function of a notebook or a session needs `workers=0`. `controller` may be a class of either.

    Args:
        x, y: images (count, height, width[, channels]) and labels (count,) to train on, instead of a task. They are
            written to a file beside the store, for workers and for `resume`.
        arrays: more arrays of this kind: x_validation, y_validation, x_test, y_test.
        store: path or URL; None for AUTOML_STORE, or `automl.db` in the current folder.
        on_child_end: called with every child soon after its end.
        listeners: receive the events of the search. Their exceptions are logged and do not end the search.
        pool: a subclass of `Pool` with a `PoolSetup` as its only argument, or a function that makes one: trains
            children elsewhere than on this machine's workers. A later `resume` needs it again.

    Raises:
        ValueError: an option is unknown or has a bad value.
        NameTakenError: the name exists.
    """
    all_listeners = _listeners(listeners, on_child_end)
    address = store_address(store)
    options = SearchConfig.read(options)
    user_callables: dict[str, Callable[..., Any]] = {}
    for key in USER_CALLABLES:
        if callable(function := options.get(key)):
            options[key] = _reference(function, workers=0 if key == "controller" else options.get("workers"))
            if not UserFile.is_reference(options[key]):
                user_callables[key] = function
    given = {"x_train": x, "y_train": y, **(arrays or {})} if x is not None or y is not None or arrays else {}
    if given and "task" in options:
        raise ValueError("Arrays take the place of a task; drop the argument task, or x and y.")
    check_name(name)
    config = SearchConfig(**options)
    with contextlib.closing(Store(address, create=True, deferred=True)) as opened:
        refuse_taken(opened, name)
        try:
            if given:
                config = dataclasses.replace(config, task=_keep_arrays(opened, name, given))
            run = create(opened, name, config, user_callables=user_callables)
        except BaseException:
            if given:
                _drop_arrays(opened, name)
            raise
        for donor in opened.donors(opened.search(name).id):
            logger.info("Learns from %s", donor_line(donor))
        try:
            with _time_limit(run.time) as stop, deleting_unless_started(opened, name):
                ending = run_search(
                    opened,
                    name,
                    run,
                    stop,
                    user_callables=user_callables,
                    listeners=all_listeners,
                    pool=pool,
                    on_data=functools.partial(_log_data, warnings=True),
                )
        except Exception:
            if given and not opened.has_search(name):
                _drop_arrays(opened, name)
            raise
    return Result(name, address, ending)


def resume(
    name: str,
    *,
    store: str | os.PathLike[str] | None = None,
    on_child_end: Callable[[Child], None] | None = None,
    listeners: Sequence[SearchListener] = (),
    pool: PoolMaker | None = None,
    **changes: Any,
) -> Result:
    """Resumes a search and runs it to its end. `changes` are the arguments of `resumed`, such as `children` and `time`.

    A search that uses a function or a controller class of a notebook needs it again, as `space=`, `task=` or
    `controller=`. The other arguments are those of `search`.

    Raises:
        UnknownSearchError: no search has this name.
        LeaseHeldError: another process runs the search.
        ValueError: a change is unknown, has a bad value, or does not fit the search.
    """
    all_listeners = _listeners(listeners, on_child_end)
    names = [name for name, one in inspect.signature(resumed).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for key, value in changes.items():
        if key in SearchConfig.options() and key not in names:
            raise ValueError(f"{key} is an option of a new search: a resume cannot change it; leave it out.")
        validate_choice("setting of a resume", key, names)
        if isinstance(value, os.PathLike):
            changes[key] = os.fspath(value)
    user_callables = {key: changes.pop(key) for key in USER_CALLABLES if callable(changes.get(key))}
    with contextlib.closing(Store(store_address(store), upgrade=True)) as opened:
        prepared = prepare_resume(opened, name, **changes)
        with _time_limit(prepared.run.time) as stop:
            ending = run_search(
                opened,
                name,
                prepared.run,
                stop,
                resume=prepared,
                user_callables=user_callables,
                listeners=all_listeners,
                pool=pool,
                on_data=functools.partial(_log_data, warnings=False),
            )
    return Result(name, store_address(store), ending)


def retry(
    name: str, *, fault: str | None = None, child: int | None = None, store: str | os.PathLike[str] | None = None
) -> list[int]:
    """Makes failed and lost children ready to be trained again; returns their numbers. The search must not run.

    Args:
        fault: only children with this fault: `raised`, `crashed`, …
        child: only the child of this number.

    Raises:
        ValueError: there is no such fault, or the child has not failed.
        LeaseHeldError: the search runs.
    """
    with contextlib.closing(Store(store_address(store), upgrade=True)) as opened:
        return make_ready(opened, name, fault=fault, number=child)


def _log_data(summary: DataSummary, *, warnings: bool) -> None:
    """Logs a summary of the data; with `warnings` (for a new search), also warns of likely mistakes."""
    logger.info("Data: %s", summary.line)
    for warning in summary.warnings if warnings else ():
        logger.warning(warning)


def _reference(function: Callable[..., Any], *, workers: int | None) -> str:
    """How a search refers to a function or class: by its file, or only by its name if only this process has it."""
    title = getattr(function, "__qualname__", repr(function))
    file = _source_file(function)
    if file is not None and title.isidentifier() and function.__module__ != "__main__" and os.path.isfile(file):
        return f"{file}:{title}"
    if workers != 0:
        raise ValueError(
            f"Workers cannot find {title}: it exists only in this session. Move it to a file and pass 'FILE.py:NAME' "
            "or import it from there, or use workers=0."
        )
    return f"{SESSION}{title}"


def _source_file(function: Callable[..., Any]) -> str | None:
    if inspect.isfunction(function) or inspect.isclass(function):
        with contextlib.suppress(TypeError, OSError):  # a class of a session, or a built-in one
            return inspect.getsourcefile(function)
    return None


def delete_arrays(store: Store, name: str) -> None:
    """Deletes the arrays that were given to a search; deletes nothing if the name is not valid."""
    if is_search_name(name):
        with contextlib.suppress(OSError):
            own_files.remove(arrays_path(store, name), own=1)


def _drop_arrays(store: Store, name: str) -> None:
    """Deletes the arrays of a search that did not start, and their folder if it is empty."""
    delete_arrays(store, name)
    with contextlib.suppress(OSError):
        arrays_path(store, name).parent.rmdir()


def _keep_arrays(store: Store, name: str, arrays: Mapping[str, np.ndarray | None]) -> str:
    """Writes arrays to the file that is the search's task."""
    path = arrays_path(store, name)
    given = {key: np.asarray(array) for key, array in arrays.items() if array is not None}
    try:
        descriptor = own_files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, own=1)
    except OSError as error:
        raise StoreError(f"The arrays cannot be written to {path}: {error.strerror}.") from error
    with open(descriptor, "wb") as file:
        np.savez(file, allow_pickle=False, **given)
    return f"npz:{path}"


def _listeners(given: Sequence[SearchListener], on_child_end: Callable[[Child], None] | None) -> Listeners:
    """The listeners of a run of the Python API; they run in the caller's current folder."""
    callbacks = [] if on_child_end is None else [OnChildEnd(on_child_end)]
    return Listeners([Warnings(), *callbacks, *given], folder=current_folder())


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[Stop]:
    """A stop that is requested when the time is over. A child in this process is still trained to its end."""
    stop = Stop()
    if seconds is None:
        yield stop
        return
    timer = threading.Timer(seconds, stop.request, [GIVEN_TIME_OVER])
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        timer.join()


@dataclasses.dataclass(frozen=True)
class Result:
    """A search in a store. Its properties read the present content of the store.

    Attributes:
        ending: how the run that returned this result ended; None if no run did.
    """

    name: str
    store: str | os.PathLike[str]
    ending: Ending | None = None

    @property
    def children(self) -> list[Child]:
        """All children in number order."""
        with contextlib.closing(open_store(self.store)) as store:
            return store.children(store.search(self.name).id)

    @property
    def best(self) -> BestChild:
        """The best trained child. Raises StoreError if no child is trained yet."""
        with contextlib.closing(open_store(self.store)) as store:
            search = store.search(self.name)
            top = store.top(search.id, 1)
        if not top:
            raise StoreError(f"No child of {self.name!r} is trained yet.")
        return BestChild(self, search, top[0])

    def dataframe(self) -> pandas.DataFrame:
        """All children as a data frame, one row each, indexed by number.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "dataframe() needs pandas; install it with: pip install 'automl-reinforce[dataframe]'"
            ) from None

        rows: Sequence[dict[str, Any]] = [child_columns(child) for child in self.children]
        return pandas.DataFrame(rows).set_index("number") if rows else pandas.DataFrame()

    def export(
        self, format: str, to: str | Path, *, child: int | None = None, force: bool = False, data: str | None = None
    ) -> Path:
        """Writes a child in a format of `automl.exporters.EXPORTERS`; returns the path.

        Args:
            child: its number; None for the best child.
            force: overwrite an existing file.
            data: the present place of the search's data, as `npz:PATH` or `text:PATH`.

        Raises:
            ExportError: the child cannot be exported in this format, or the file exists.
        """
        with contextlib.closing(open_store(self.store)) as store:
            return export_child(store, self.name, format, Path(to), number=child, force=force, data=data).path


@dataclasses.dataclass(frozen=True)
class BestChild:
    """The best child of a search."""

    result: Result
    search: Search
    child: Child

    @property
    def reward(self) -> float:
        assert self.child.state == State.TRAINED and self.child.reward is not None
        return self.child.reward

    def model(self) -> keras.Model:
        """The Keras model with its stored weights; it takes raw input. Raises ExportError if no weights are stored."""
        with contextlib.closing(open_store(self.result.store)) as store:
            return model_of(store, self.search, self.child)

    def export(self, format: str, to: str | Path, *, force: bool = False) -> Path:
        return self.result.export(format, to, child=self.child.number, force=force)
