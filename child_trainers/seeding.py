"""Seeds all global random generators for a child, including those of libraries that the child imports first."""

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

LIBRARIES = ("tensorflow", "keras", "torch")  # they have their own random generators
TOGETHER = {"tensorflow", "keras"}  # cleared and seeded together, since each runs code of the other


def seed_basic(seed: int) -> None:
    """Seeds Python's and NumPy's generators."""
    random.seed(seed)
    np.random.seed(seed)


def seed_libraries(names: Iterable[str], seed: int) -> None:
    """Clears and seeds those of the libraries that are imported. It does not change `random` and NumPy."""
    imported = {name for name in names if name in sys.modules}
    with preserve_basic():
        if "torch" in imported:
            sys.modules["torch"].manual_seed(seed)
        if not imported & TOGETHER:
            return
        if "keras" in sys.modules:
            keras = sys.modules["keras"]
            keras.backend.clear_session()
            keras.utils.set_random_seed(seed)  # TensorFlow's generator too
        else:
            sys.modules["tensorflow"].random.set_seed(seed)


@contextlib.contextmanager
def preserve_basic() -> Iterator[None]:
    """A context that restores the states of `random` and NumPy at its end."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


class Seeder:
    """Gives every child of a task the same initial random state, whatever the task imports and when.

    A library that the task is known to use is cleared and seeded before each child. If a child is the first to import a
    library, the library is seeded at that moment; the child cannot have drawn from it before. A library that only other
    code has imported, such as TensorFlow for the policy, is not cleared: clearing discards every compiled function.

    Args:
        used: libraries that the task is known to use.
    """

    def __init__(self, used: Iterable[str] = ()) -> None:
        self.used = _with_related(used)

    @contextlib.contextmanager
    def begin(self, seed: int) -> Iterator[None]:
        """Seeds all generators now, and within the context each library when it is first imported."""
        seed_basic(seed)
        seed_libraries(self.used, seed)
        with self.watch(seed):
            yield

    @contextlib.contextmanager
    def watch(self, seed: int) -> Iterator[None]:
        """Seeds libraries when they are first imported within the context, and restores the generators after
        imports."""
        watch = _Watch(seed, self.used)
        watch.start()
        try:
            yield
        finally:
            watch.stop()


class _Watch(MetaPathFinder):
    """An import hook.

    A module that is imported for the first time runs with fixed seeds, whichever child imports it. The generators are
    restored afterwards, because later children do not run the module again.
    """

    current: _Watch | None = None

    def __init__(self, seed: int, used: set[str]) -> None:
        self._seed = seed
        self._used = used
        self._depth = 0  # nesting of imports
        self._libraries = 0  # the number of these imports that are libraries
        self._new: set[str] = set()  # libraries that the module being imported has imported
        self._before: _Watch | None = None
        self._originals: tuple[Any, Any] | None = None

    def start(self) -> None:
        self._before, _Watch.current = _Watch.current, self
        sys.meta_path.insert(0, self)
        if any(name in sys.modules and name not in self._used for name in LIBRARIES):
            self._originals = builtins.__import__, importlib.import_module
            builtins.__import__, importlib.import_module = _notifying(*self._originals)

    def stop(self) -> None:
        if self._originals is not None:
            builtins.__import__, importlib.import_module = self._originals
        sys.meta_path.remove(self)
        _Watch.current = self._before

    def on_reimport(self, name: str) -> None:
        """Called for an import statement of a module that is imported already."""
        name = name.partition(".")[0]
        if name in LIBRARIES and name not in self._used and name in sys.modules and not self._libraries:
            self._use(name)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        library = name in LIBRARIES
        if self._depth and not library:
            return None
        spec = self._find_original(name, path, target)
        loader: Any = None if spec is None else spec.loader
        if not hasattr(loader, "exec_module") or isinstance(loader, type):
            return spec  # built-in modules draw no random numbers
        execute: Callable[[ModuleType], None] = loader.exec_module

        def execute_seeded(module: ModuleType) -> None:
            del loader.exec_module
            with preserve_basic():
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
                seed_libraries(self._new, self._seed)  # the module may have drawn numbers from them
                self._new.clear()

        with contextlib.suppress(AttributeError):  # a loader with `__slots__`: its module is imported without the hook
            loader.exec_module = execute_seeded
        return spec

    def _find_original(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if isinstance(finder, _Watch) or not hasattr(finder, "find_spec"):
                continue
            if (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None

    def _use(self, name: str) -> None:
        self._used.update(_with_related([name]))
        seed_libraries([name], 0 if self._depth else self._seed)
        if self._depth:
            self._new.add(name)


def _with_related(names: Iterable[str]) -> set[str]:
    """The libraries and those that are cleared with them.

    If only one of TensorFlow and Keras counted as used, the first import statement within the other would clear Keras
    while the child builds its model.
    """
    libraries = set(names)
    return libraries | TOGETHER if libraries & TOGETHER else libraries


def _notifying(statement: Callable[..., Any], function: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Replacements of `__import__` and `importlib.import_module` that notify the current `_Watch`.

    Finders of `sys.meta_path` are not called for modules that are imported already.
    """

    def import_statement(name: str, *arguments: Any, **named: Any) -> ModuleType:
        module: ModuleType = statement(name, *arguments, **named)
        if _Watch.current is not None:
            _Watch.current.on_reimport(name)
        return module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        module: ModuleType = function(name, package)
        if _Watch.current is not None:
            _Watch.current.on_reimport(module.__name__)
        return module

    return import_statement, import_module
