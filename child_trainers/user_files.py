"""Loads a user's own file by path, attribute and checksum, as a module under its own name.

Other processes can import the file by that name, so joblib, `multiprocessing` and pickle can send them what it defines.
Folders of user files come last on the path, so that a user's module does not replace another package's.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from automl.child_trainers.seeding import LIBRARIES, Seeder, basic_kept, seed_basic
from automl.search_spaces.names import nearest_first

OURS = Path(__file__).absolute().parents[1]  # the folder of the package `automl`


class UserFileError(ValueError):
    """A person's file cannot be used; the message is one sentence with the way out."""


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A file as a search knows it; `text` is only for showing."""

    path: str
    attribute: str
    sha256: str
    text: str

    @classmethod
    def is_reference(cls, reference: str) -> bool:
        """Whether a name such as `my_space.py:space` means a file."""
        return reference.partition(":")[0].endswith(".py") and not reference.startswith("npz:")

    @classmethod
    def read(cls, reference: str) -> UserFile:
        """Reads `PATH:ATTRIBUTE`. Raises UserFileError."""
        path_text, _, attribute = reference.partition(":")
        path = Path(os.path.expanduser(path_text)).absolute()
        if not attribute:
            raise UserFileError(f"{reference} names no function; write {_with_function(path_text, path)}.")
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserFileError(f"{path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UserFileError(f"{path} is not a Python file: it is not UTF-8 text.") from None
        return cls(str(path), attribute, _sha256(text), text)

    @classmethod
    def from_json(cls, value: dict[str, str] | None) -> UserFile | None:
        return None if value is None else cls(**value)

    def to_json(self) -> dict[str, str]:
        return dataclasses.asdict(self)

    def check_unchanged(self) -> None:
        """Raises UserFileError where the file on disk is missing or no longer the one that the search began with."""
        self._unchanged_text()

    def _unchanged_text(self) -> str:
        try:
            found = UserFile.read(f"{self.path}:{self.attribute}")
        except UserFileError as error:
            where = f"FILE.py:{self.attribute} after --space, --task or --controller of automl resume"
            raise UserFileError(f"{str(error).rstrip('.')}; put it back, or say where it is now: {where}.") from None
        if found.sha256 != self.sha256:
            raise UserFileError(
                f"{self.path} has changed since the search began (sha256 {self.sha256[:12]}, now {found.sha256[:12]}); "
                "put the old text back, or accept the new one with --accept-change."
            )
        return found.text

    def check_name(self) -> None:
        """Raises UserFileError if another process would import another module by the file's name."""
        path = Path(self.path)
        name, _ = _module_name(path, self.text)
        clash = _clash(name, path)
        if clash is not None:
            what = f"{self.path} is the module {name!r}, and"
            raise UserFileError(
                f"{what} {clash} has that name too, so that another process would import it instead; rename the file."
                if "." not in name
                else f"{what} {clash} has the name of its package, so that Python imports it instead; rename "
                f"{path.parents[name.count('.') - 1]}."
            )

    def load(self) -> Callable[..., Any]:
        """Runs the file and returns the attribute.

        Raises:
            UserFileError: of the file, and of what it raises itself; or one that lies beside it and that it imports has
                the name of another module.
        """
        module = self._loaded().module
        value = getattr(module, self.attribute, None)
        if not callable(value):
            others = [name for name, found in vars(module).items() if _is_own(name, found, module)]
            functions = nearest_first(self.attribute, others)
            raise UserFileError(f"{self.path} has no function {self.attribute!r}; it has {functions or 'no function'}.")
        return value

    @property
    def uses(self) -> set[str]:
        """Libraries of `seeding.LIBRARIES` that the file is known to use."""
        return self._in_use().uses | {name for name in LIBRARIES if name in self.text}

    def importing(self) -> contextlib.AbstractContextManager[None]:
        """A context in which imports find the file and the modules beside it, whatever else this process has loaded."""
        return self._in_use().importing()

    def _in_use(self) -> _UserModule:
        """What `load` has run, also where the user edits the file meanwhile: children of a search that runs go on."""
        return _modules.get((self.path, self.sha256)) or self._loaded()

    def _loaded(self) -> _UserModule:
        text = self._unchanged_text()
        loaded = _modules.get((self.path, self.sha256))
        if loaded is None:
            path = Path(self.path)
            _check_imports(path, text)
            loaded = _UserModule(path, text)
            try:
                loaded.load()
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                raise UserFileError(
                    f"{self.path} does not run: {type(error).__name__}{self._line_of(error)}: {error}"
                ) from error
            _modules[self.path, self.sha256] = loaded
        return loaded

    def _line_of(self, error: Exception) -> str:
        """Where in the file it was raised, as far as that can be said."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        return "" if line is None else f" in line {line}"


class _UserModule:
    """A file as a module of this process.

    Two files may have the same name, and so may the modules beside them; `sys.modules` has those of the file in use.

    Attributes:
        name: its own with that of its package; a generated one if that name belongs to another module.
        folders: where its imports are searched.
        uses: libraries that it, or a module that it imports, refers to.
    """

    def __init__(self, path: Path, text: str) -> None:
        name, self.folders = _module_name(path, text)
        if not _importable(name, path) or _clash(name, path) is not None:
            name = f"automl_user_{_sha256(str(path))[:8]}_{_sha256(text)[:16]}"
        self.name = name
        self.module = ModuleType(name)
        self.uses: set[str] = set()
        self._path = path
        self._text = text
        self._own: dict[str, ModuleType] = {}  # modules imported from its folders
        self._looked_at = 0  # number of modules in this process at the last search for these

    def load(self) -> None:
        finder = _TextFinder(self.name, str(self._path), self._text)
        seeder = Seeder()
        before = sys.modules.pop(self.name, None)
        sys.meta_path.insert(0, finder)
        try:
            with self.importing(), basic_kept(), seeder.watch(0):
                seed_basic(0)  # the file draws the same numbers in every process
                self.module = importlib.import_module(self.name)
        finally:
            sys.meta_path.remove(finder)
            if before is not None:
                sys.modules[self.name] = before  # a module of this name that the session had imported
        self.uses = seeder.used | {name for module in self._own.values() for name in _referred(module)}

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        self._put_folders_on_path()
        strangers = {
            name: module
            for other in _modules.values()
            if other.folders != self.folders
            for name, module in other._own.items()
            if sys.modules.get(name) is module and _lies_in(name, self.folders) is not None
        }
        for name in strangers:
            del sys.modules[name]
        for name, module in self._own.items():
            if sys.modules.get(name, module) is not module:
                strangers.setdefault(name, sys.modules[name])
            sys.modules[name] = module
        try:
            yield
        finally:
            self._collect()
            sys.modules.update(strangers)

    def _collect(self) -> None:
        """Records the modules that were imported from its folders."""
        if len(sys.modules) == self._looked_at:
            return
        for name, module in list(sys.modules.items()):
            file = str(vars(module).get("__file__")) if isinstance(module, ModuleType) else ""
            beside = file.startswith(tuple(self.folders)) and _lies_in(name, self.folders) == file
            if beside or (name == self.name and file == str(self._path)):
                self._own[name] = module
        self._looked_at = len(sys.modules)

    def _put_folders_on_path(self) -> None:
        """Puts its folders before those of other user files and after all others."""
        for folder in reversed(self.folders):
            if folder in sys.path:
                if folder not in _added:
                    continue
                sys.path.remove(folder)
            first = min((sys.path.index(other) for other in _added if other in sys.path), default=len(sys.path))
            sys.path.insert(first, folder)
            _added.add(folder)


_modules: dict[tuple[str, str], _UserModule] = {}  # by path and checksum
_added: set[str] = set()  # folders that were put on the path


class _TextFinder(MetaPathFinder):
    """Finds one module and loads it from a text, so that the text that was hashed is what runs; the default loader
    would read the file again, or a stale file of __pycache__."""

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


def _module_name(path: Path, text: str) -> tuple[str, list[str]]:
    """The module name of a file, and the folders in which its imports are searched.

    The file is loaded as part of its package only if it imports from it; otherwise the package does not run.
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
    """Whether Python can import a file by this name at all."""
    return name != "__main__" and "." not in path.stem


def _clash(name: str, path: Path) -> str | None:
    """Describes what an import of this name finds instead of the file; None if it finds the file or nothing."""
    if not _importable(name, path):
        return None
    parts = name.split(".")
    top = path
    for _ in parts if path.stem == "__init__" else parts[1:]:
        top = top.parent
    return _found_instead(parts[0], path if top == path else top / "__init__.py")


def _check_imports(path: Path, text: str) -> None:
    """Raises UserFileError if the file, or a file beside it that it imports, imports a file beside it by a name for
    which Python finds another module."""
    _, folders = _module_name(path, text)
    waiting, seen = [(path, text)], {path}
    while waiting:
        importer, text = waiting.pop()
        beside = {name: file for name in _imports(text) - {""} if (file := _lies_in(name, folders)) is not None}
        for name, file in [*beside.items(), *(("", file) for file in _relative_imports(importer, text))]:
            if Path(file) in seen:
                continue
            seen.add(Path(file))
            clash = _found_instead(name, Path(file)) if name else None
            if clash is not None:
                named = file.removesuffix(f"{os.sep}__init__.py")
                raise UserFileError(
                    f"{importer} imports {name!r}, the name of {named} beside it and of {clash}, which Python finds "
                    f"first; rename {named}."
                )
            with contextlib.suppress(OSError, UnicodeDecodeError):
                waiting.append((Path(file), Path(file).read_text(encoding="utf-8")))


def _found_instead(name: str, file: Path) -> str | None:
    """Describes what Python imports by a name instead of this file; None if nothing."""
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


def _lies_in(name: str, folders: Iterable[str]) -> str | None:
    """The file of a module of this name that lies in one of the folders."""
    place = name.replace(".", os.sep)
    for folder in folders:
        for file in (f"{folder}{os.sep}{place}{os.sep}__init__.py", f"{folder}{os.sep}{place}.py"):
            if os.path.isfile(file):
                return file
    return None


def _imports(text: str) -> set[str]:
    """The top-level names of all modules that a text imports anywhere; "" for relative imports."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return set()  # reported when the file is run
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("" if node.level else (node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value.partition(".")[0])
    return found


def _relative_imports(importer: Path, text: str) -> set[str]:
    """Files that a file of a package may import by `from . import NAME` and `from .NAME import …`."""
    with contextlib.suppress(SyntaxError, ValueError):
        statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
        files = set()
        for node in statements:
            folder = [str(importer.parents[min(node.level, len(importer.parents)) - 1])]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            files |= {_lies_in(name, folder) for name in names}
        return files - {None}  # type: ignore[return-value]
    return set()


def _referred(module: ModuleType) -> set[str]:
    """Libraries of `seeding.LIBRARIES` that globals of a module belong to."""
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


def meant_file(reference: str) -> str | None:
    """The reference `FILE.py:FUNCTION` for one written as `mine:space` or `mine.space`; None if there is no such
    file."""
    module, colon, attribute = reference.partition(":")
    dotted, dot, last = module.rpartition(".")
    candidates = [(module, attribute)] if colon else [(module, ""), *([(dotted, last)] if dot else [])]
    for name, function in candidates:
        for path_text in dict.fromkeys((f"{name}.py", f"{name.replace('.', '/')}.py")):
            path = Path(os.path.expanduser(path_text))
            if name and "\0" not in name and os.path.isfile(path):
                return f"{path_text}:{function}" if function else _with_function(path_text, path)
    return None


def _with_function(path_text: str, path: Path) -> str:
    """`mine.py:space or mine.py:evaluate`: the functions of a file as a search names them."""
    try:
        functions = _functions_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        functions = []
    return " or ".join(f"{path_text}:{name}" for name in functions[:4]) or f"{path_text}:NAME, with the function's name"


def _is_own(name: str, found: Any, module: ModuleType) -> bool:
    """Whether a file defines this function, rather than importing it."""
    imported = hasattr(found, "__qualname__") and getattr(found, "__module__", None) != module.__name__
    return callable(found) and not name.startswith("_") and not imported


def _functions_in(text: str) -> list[str]:
    """The public functions and classes at a file's top level, which is not run."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
