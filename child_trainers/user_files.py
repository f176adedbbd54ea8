"""Loads a person's own file: by path, attribute and checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
        path = Path(path_text).expanduser().absolute()
        if not attribute:
            raise UserFileError(f"{reference} names no attribute; write {path_text}:NAME, with the function's name.")
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
        found = UserFile.read(f"{self.path}:{self.attribute}")
        if found.sha256 != self.sha256:
            raise UserFileError(
                f"{self.path} has changed since the search began (sha256 {self.sha256[:12]}, now {found.sha256[:12]}); "
                "put the old text back, or accept the new one with --accept-change."
            )
        return found.text

    def load(self) -> Callable[..., Any]:
        """Runs the file and returns the attribute. Raises UserFileError, also from what the file itself raises."""
        text = self._unchanged_text()
        name = f"automl_user_{_sha256(self.path)[:8]}_{self.sha256[:16]}"
        module = sys.modules.get(name)
        if module is None:
            folder = str(Path(self.path).parent)
            if folder not in sys.path:
                # Last, never first: a person's own `db` or `controllers` must not become ours.
                sys.path.append(folder)
            module = types.ModuleType(name)
            module.__file__ = self.path
            sys.modules[name] = module
            try:
                # What was hashed is what runs: a loader would read the file again, or a stale file of __pycache__.
                exec(compile(text.encode(), self.path, "exec"), vars(module))
            except BaseException as error:
                del sys.modules[name]
                if not isinstance(error, Exception):
                    raise
                raise UserFileError(
                    f"{self.path} does not run: {type(error).__name__}{self._line_of(error)}: {error}"
                ) from error
        value = getattr(module, self.attribute, None)
        if not callable(value):
            functions = [
                other for other, found in vars(module).items() if callable(found) and not other.startswith("_")
            ]
            raise UserFileError(
                f"{self.path} has no function {self.attribute!r}; it has {', '.join(functions) or 'no function'}."
            )
        return value

    def _line_of(self, error: Exception) -> str:
        """Where in the file it was raised, as far as that can be said."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        return "" if line is None else f" in line {line}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
