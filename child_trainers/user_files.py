"""A user's file, which a search identifies by path, attribute and checksum."""

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
    """A reference to a user's file in a search. `text` is stored only to be shown."""

    path: str
    attribute: str
    sha256: str
    text: str

    @classmethod
    def is_reference(cls, reference: str) -> bool:
        """Whether a name refers to a file, such as `my_space.py:space`."""
        return reference.partition(":")[0].endswith(".py") and not reference.startswith("npz:")

    @classmethod
    def read(cls, reference: str) -> UserFile:
        """Reads the file of `PATH:ATTRIBUTE`. Raises UserFileError if it cannot be read or has no attribute."""
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
        """Raises UserFileError if the file is missing or has changed since the search began."""
        self._unchanged_text()

    def _unchanged_text(self) -> str:
        try:
            current = UserFile.read(f"{self.path}:{self.attribute}")
        except UserFileError as error:
            how = f"FILE.py:{self.attribute} after --space, --task or --controller of automl resume"
            raise UserFileError(f"{str(error).rstrip('.')}; put it back, or say where it is now: {how}.") from None
        if current.sha256 != self.sha256:
            raise UserFileError(
                f"{self.path} has changed since the search began (sha256 {self.sha256[:12]}, now "
                f"{current.sha256[:12]}); put the old text back, or accept the new one with --accept-change."
            )
        return current.text

    def check_name(self) -> None:
        """Raises UserFileError if another process would import a different module by the file's name."""
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
            UserFileError: the file is missing, has changed, raises an exception or lacks the attribute; or a file
                beside it that it imports has the name of another module.
        """
        module = self._loaded().module
        value = getattr(module, self.attribute, None)
        if not callable(value):
            others = [name for name, member in vars(module).items() if _is_own(name, member, module)]
            functions = nearest_first(self.attribute, others)
            raise UserFileError(f"{self.path} has no function {self.attribute!r}; it has {functions or 'no function'}.")
        return value

    @property
    def uses(self) -> set[str]:
        """Libraries of `seeding.LIBRARIES` that the file is known to use."""
        return self._in_use().uses | {name for name in LIBRARIES if name in self.text}

    def importing(self) -> contextlib.AbstractContextManager[None]:
        """A context in which imports find the file and the modules beside it, whatever user files this process has
        loaded."""
        return self._in_use().importing()

    def _in_use(self) -> UserModule:
        """The module that `load` has run. It stays in use if the user edits the file while the search runs."""
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
        """The line of the file that raised an error, as part of a message; "" if it is not known."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        return "" if line is None else f" in line {line}"


def suggested_reference(reference: str) -> str | None:
    """The reference `FILE.py:FUNCTION` that a user may mean by `mine:space` or `mine.space`; None if there is no such
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
    """References to the functions of a file, for a message: `mine.py:space or mine.py:evaluate`."""
    try:
        functions = _functions_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        functions = []
    return " or ".join(f"{path_text}:{name}" for name in functions[:4]) or f"{path_text}:NAME, with the function's name"


def _is_own(name: str, member: Any, module: ModuleType) -> bool:
    """Whether the file itself defines this public function or class."""
    imported = hasattr(member, "__qualname__") and getattr(member, "__module__", None) != module.__name__
    return callable(member) and not name.startswith("_") and not imported


def _functions_in(text: str) -> list[str]:
    """The names of the public functions and classes at the top level of a file. The file is not run."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]
