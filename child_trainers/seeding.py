"""Seeds every global generator for a child, also those of libraries that the child is the first to import."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

LIBRARIES = ("tensorflow", "keras", "torch")  # those with generators of their own


def seed_basic(seed: int) -> None:
    """Seeds the generators that are always there."""
    random.seed(seed)
    np.random.seed(seed)


def seed_libraries(names: Iterable[str], seed: int) -> None:
    """Clears and seeds those of these libraries that are imported; `random` and NumPy stay what they are."""
    imported = {name for name in names if name in sys.modules}
    with basic_kept():
        if "torch" in imported:
            sys.modules["torch"].manual_seed(seed)
        if not imported & {"tensorflow", "keras"}:
            return
        if "keras" in sys.modules:
            keras = sys.modules["keras"]
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed)  # TensorFlow's generator too
        else:
            sys.modules["tensorflow"].random.set_seed(seed)


@contextlib.contextmanager
def basic_kept() -> Iterator[None]:
    """Brings `random` and NumPy back to the state that they were in."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


class Seeder:
    """Makes every child of a task begin alike, whatever the task imports and when.

    A library is cleared and seeded at the beginning of a child where the task is known to use it. A child that is the
    first to import one has it seeded at that moment: it cannot have drawn from it before. Libraries that only others
    have imported, such as TensorFlow by the policy, are left alone, because clearing them makes every compiled
    function start anew.

    Args:
        used: libraries that the task is known to use.
    """

    def __init__(self, used: Iterable[str] = ()) -> None:
        self.used = set(used)

    @contextlib.contextmanager
    def begin(self, seed: int) -> Iterator[None]:
        """Seeds everything, and within the context also what is imported only then."""
        seed_basic(seed)
        seed_libraries(self.used, seed)
        with self.watch(seed):
            yield

    @contextlib.contextmanager
    def watch(self, seed: int) -> Iterator[None]:
        """Seeds libraries when they are first imported within the context, and keeps imports from drawing numbers."""
        watch = _Watch(seed, self.used)
        watch.start()
        try:
            yield
        finally:
            watch.stop()


class _Watch(MetaPathFinder):
    """Follows what is imported.

    A module that is imported for the first time runs with generators seeded alike, whichever child imports it, and
    leaves them as they were: a later child does not run it again.
    """

    current: _Watch | None = None

    def __init__(self, seed: int, used: set[str]) -> None:
        self._seed = seed
        self._used = used
        self._depth = 0  # of modules that are being imported
        self._libraries = 0  # how many of those are libraries or part of one
        self._new: set[str] = set()  # libraries that a module has imported which is being imported itself
        self._before: _Watch | None = None
        self._originals: tuple[Any, Any] | None = None

    def start(self) -> None:
        self._before, _Watch.current = _Watch.current, self
        sys.meta_path.insert(0, self)
        if any(name in sys.modules and name not in self._used for name in LIBRARIES):
            self._originals = builtins.__import__, importlib.import_module
            builtins.__import__, importlib.import_module = _telling(*self._originals)

    def stop(self) -> None:
        if self._originals is not None:
            builtins.__import__, importlib.import_module = self._originals
        sys.meta_path.remove(self)
        _Watch.current = self._before

    def touched(self, name: str) -> None:
        """Takes note of an import of something that is imported already."""
        name = name.partition(".")[0]
        if name in LIBRARIES and name not in self._used and name in sys.modules and not self._libraries:
            self._use(name)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        library = name in LIBRARIES
        if self._depth and not library:
            return None
        spec = self._found(name, path, target)
        loader: Any = None if spec is None else spec.loader
        if not hasattr(loader, "exec_module") or isinstance(loader, type):
            return spec  # built into Python: it draws nothing
        execute: Callable[[ModuleType], None] = loader.exec_module

        def follow(module: ModuleType) -> None:
            del loader.exec_module
            with basic_kept():
                seed_basic(0)
                self._depth += 1
                self._libraries += library
                try:
                    execute(module)
                finally:
                    self._depth -= 1
                    self._libraries -= library
            if library and not self._libraries:
                self._use(name)
            if not self._depth and self._new:
                seed_libraries(self._new, self._seed)  # the module may have drawn from them
                self._new.clear()

        with contextlib.suppress(AttributeError):  # a loader with slots: its module is imported as ever
            loader.exec_module = follow
        return spec

    def _found(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if isinstance(finder, _Watch) or not hasattr(finder, "find_spec"):
                continue
            if (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None

    def _use(self, name: str) -> None:
        self._used.add(name)
        if name in ("tensorflow", "keras"):  # each brings the other
            self._used.update(other for other in ("tensorflow", "keras") if other in sys.modules)
        seed_libraries([name], 0 if self._depth else self._seed)
        if self._depth:
            self._new.add(name)


def _telling(statement: Callable[..., Any], function: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Import statements and `importlib.import_module` that tell the watch of the moment what they import.

    The finders of `sys.meta_path` do not hear of modules that are imported already.
    """

    def import_statement(name: str, *arguments: Any, **named: Any) -> ModuleType:
        module: ModuleType = statement(name, *arguments, **named)
        if _Watch.current is not None:
            _Watch.current.touched(name)
        return module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        module: ModuleType = function(name, package)
        if _Watch.current is not None:
            _Watch.current.touched(module.__name__)
        return module

    return import_statement, import_module
