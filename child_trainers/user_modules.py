"""A user's file as a module of this process, under its own name.

Other processes can import the file by that name, so joblib, `multiprocessing` and pickle can send them its functions
and classes. The folders of user files come last on `sys.path`, so that a user's module replaces no package's module.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from automl.child_trainers.seeding import LIBRARIES, Seeder, preserve_basic, seed_basic

OURS = Path(__file__).absolute().parents[1]  # the folder of the package `automl`


class UserFileError(ValueError):
    """The user's file cannot be used. The message is one sentence that says what to do."""


class UserModule:
    """A user's file as a module of this process.

    Two files may have the same name, and so may the modules beside them. `sys.modules` has the modules of the file in
    use.

    Attributes:
        name: the module name with its package; a generated name if another module has that name.
        module: the module object.
        folders: the folders in which its imports are searched.
        uses: libraries of `seeding.LIBRARIES` that the file, or a module that it imports, refers to.
    """

    def __init__(self, path: Path, text: str) -> None:
        name, self.folders = module_name(path, text)
        if not _importable(name, path) or clash_of(name, path) is not None:
            name = f"automl_user_{sha256_of(str(path))[:8]}_{sha256_of(text)[:16]}"
        self.name = name
        self.module = ModuleType(name)
        self.uses: set[str] = set()
        self._path = path
        self._text = text
        self._own: dict[str, ModuleType] = {}  # modules imported from its folders
        self._num_modules = 0  # length of `sys.modules` when `_own` was last updated

    def load(self) -> None:
        """Runs the file. Raises whatever the file raises."""
        finder = _TextFinder(self.name, str(self._path), self._text)
        seeder = Seeder()
        before = sys.modules.pop(self.name, None)
        sys.meta_path.insert(0, finder)
        try:
            with self.importing(), preserve_basic(), seeder.watch(0):
                seed_basic(0)  # the file draws the same numbers in every process
                self.module = importlib.import_module(self.name)
        finally:
            sys.meta_path.remove(finder)
            if before is not None:
                sys.modules[self.name] = before  # the session had imported another module of this name
        self.uses = seeder.used | {name for module in self._own.values() for name in _referred(module)}

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """A context in which `sys.modules` and `sys.path` have the file and the modules beside it."""
        self._put_folders_on_path()
        replaced = {
            name: module
            for other in LOADED.values()
            if other.folders != self.folders
            for name, module in other._own.items()
            if sys.modules.get(name) is module and _file_in(name, self.folders) is not None
        }
        for name in replaced:
            del sys.modules[name]
        for name, module in self._own.items():
            if sys.modules.get(name, module) is not module:
                replaced.setdefault(name, sys.modules[name])
            sys.modules[name] = module
        try:
            yield
        finally:
            self._collect()
            sys.modules.update(replaced)

    def _collect(self) -> None:
        """Adds to `_own` the modules that were imported from the folders of the file."""
        if len(sys.modules) == self._num_modules:
            return
        for name, module in list(sys.modules.items()):
            file = str(vars(module).get("__file__")) if isinstance(module, ModuleType) else ""
            beside = file.startswith(tuple(self.folders)) and _file_in(name, self.folders) == file
            if beside or (name == self.name and file == str(self._path)):
                self._own[name] = module
        self._num_modules = len(sys.modules)

    def _put_folders_on_path(self) -> None:
        """Puts the folders of this file on `sys.path`: before those of other user files and after all other folders."""
        for folder in reversed(self.folders):
            if folder in sys.path:
                if folder not in _added:
                    continue
                sys.path.remove(folder)
            first = min((sys.path.index(other) for other in _added if other in sys.path), default=len(sys.path))
            sys.path.insert(first, folder)
            _added.add(folder)


LOADED: dict[tuple[str, str], UserModule] = {}  # by path and checksum
_added: set[str] = set()  # folders of user files that were put on `sys.path`


class _TextFinder(MetaPathFinder):
    """Finds one module and loads it from a text, so that the process runs exactly the text that was hashed. The default
    loader would read the file again, or a stale file in __pycache__."""

    def __init__(self, name: str, path: str, text: str) -> None:
        self._name, self._path, self._text = name, path, text

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return spec_from_file_location(name, self._path, loader=_TextLoader(name, self._path, self._text))


class _TextLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self._text.encode(), self.path, "exec", dont_inherit=True)
        return code


def module_name(path: Path, text: str) -> tuple[str, list[str]]:
    """The module name of a file, and the folders in which its imports are searched.

    The file is loaded as part of its package only if it imports from the package; otherwise the package is not run.
    """
    names, folder = ([] if path.stem == "__init__" else [path.stem]), path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    imports = _imports(text)
    if names and (path.stem == "__init__" or "" in imports or (len(names) > 1 and names[0] in imports)):
        return ".".join(names), list(dict.fromkeys([str(folder), str(path.parent)]))
    return path.stem, [str(path.parent)]


def _importable(name: str, path: Path) -> bool:
    """Whether Python can import the file by this name."""
    return name != "__main__" and "." not in path.stem


def clash_of(name: str, path: Path) -> str | None:
    """Describes the module that an import of this name finds instead of the file; None if it finds the file or no
    module."""
    if not _importable(name, path):
        return None
    parts = name.split(".")
    top = path
    for _ in parts if path.stem == "__init__" else parts[1:]:
        top = top.parent
    return _other_module(parts[0], path if top == path else top / "__init__.py")


def check_imports(path: Path, text: str) -> None:
    """Raises UserFileError if a file beside the user's file has the name of another module, which Python would import
    instead. Checks all files beside it that the user's file imports, also indirectly."""
    _, folders = module_name(path, text)
    waiting, seen = [(path, text)], {path}
    while waiting:
        importer, text = waiting.pop()
        beside = {name: file for name in _imports(text) - {""} if (file := _file_in(name, folders)) is not None}
        for name, file in [*beside.items(), *(("", file) for file in _relative_imports(importer, text))]:
            if Path(file) in seen:
                continue
            seen.add(Path(file))
            clash = _other_module(name, Path(file)) if name else None
            if clash is not None:
                named = file.removesuffix(f"{os.sep}__init__.py")
                raise UserFileError(
                    f"{importer} imports {name!r}, the name of {named} beside it and of {clash}, which Python finds "
                    f"first; rename {named}."
                )
            with contextlib.suppress(OSError, UnicodeDecodeError):
                waiting.append((Path(file), Path(file).read_text(encoding="utf-8")))


def _other_module(name: str, file: Path) -> str | None:
    """Describes the module that Python imports by a name instead of this file; None if there is none."""
    if name in sys.stdlib_module_names:
        return f"Python's own module {name!r}"
    if name == OURS.name:
        return None if _same(OURS / "__init__.py", file) else f"the package {name!r} of automl itself"
    entries = [entry for entry in sys.path if entry not in _added]
    for finder in sys.meta_path:
        if finder in (BuiltinImporter, FrozenImporter) or isinstance(finder, _TextFinder):
            continue
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, entries if finder is PathFinder else None)
        if spec is not None and spec.origin is not None and not _same(Path(spec.origin), file):
            return spec.origin
    beside = PathFinder.find_spec(name, [str(file.parent.parent if file.stem == "__init__" else file.parent)])
    if beside is not None and beside.origin is not None and not _same(Path(beside.origin), file):
        return beside.origin
    return None


def _file_in(name: str, folders: Iterable[str]) -> str | None:
    """The file of a module of this name in one of the folders, or None."""
    relative = name.replace(".", os.sep)
    for folder in folders:
        for file in (f"{folder}{os.sep}{relative}{os.sep}__init__.py", f"{folder}{os.sep}{relative}.py"):
            if os.path.isfile(file):
                return file
    return None


def _imports(text: str) -> set[str]:
    """The top-level names of all modules that a source text imports anywhere; "" for relative imports."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return set()  # reported when the file is run
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("" if node.level else (node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value.partition(".")[0])
    return names


def _relative_imports(importer: Path, text: str) -> set[str]:
    """The files that a file of a package may import with `from . import NAME` and `from .NAME import …`."""
    with contextlib.suppress(SyntaxError, ValueError):
        statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
        files = set()
        for node in statements:
            folder = [str(importer.parents[min(node.level, len(importer.parents)) - 1])]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            files |= {_file_in(name, folder) for name in names}
        return files - {None}  # type: ignore[return-value]
    return set()


def _referred(module: ModuleType) -> set[str]:
    """The libraries of `seeding.LIBRARIES` to which the globals of a module belong."""
    owners = (
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
        if isinstance(value, ModuleType | type) or callable(value)
    )
    return {str(owner).partition(".")[0] for owner in owners} & set(LIBRARIES)


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
