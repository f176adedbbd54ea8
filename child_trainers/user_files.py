"""A user's own file, which a search knows by path, attribute and checksum."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from automl.child_trainers.seeding import LIBRARIES
from automl.child_trainers.user_modules import (
    LOADED,
    UserFileError,
    UserModule,
    check_imports,
    clash_of,
    module_name,
    sha256_of,
)
from automl.search_spaces.names import nearest_first


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
        return cls(str(path), attribute, sha256_of(text), text)

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
        name, _ = module_name(path, self.text)
        clash = clash_of(name, path)
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

    def _in_use(self) -> UserModule:
        """What `load` has run, also where the user edits the file meanwhile: children of a search that runs go on."""
        return LOADED.get((self.path, self.sha256)) or self._loaded()

    def _loaded(self) -> UserModule:
        text = self._unchanged_text()
        loaded = LOADED.get((self.path, self.sha256))
        if loaded is None:
            path = Path(self.path)
            check_imports(path, text)
            loaded = UserModule(path, text)
            try:
                loaded.load()
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                raise UserFileError(
                    f"{self.path} does not run: {type(error).__name__}{self._line_of(error)}: {error}"
                ) from error
            LOADED[self.path, self.sha256] = loaded
        return loaded

    def _line_of(self, error: Exception) -> str:
        """Where in the file it was raised, as far as that can be said."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        return "" if line is None else f" in line {line}"


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
