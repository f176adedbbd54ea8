"""Reads options from a TOML file, and adds the line in the file to messages about bad options."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from automl.search_spaces.names import UnknownNameError, validate_choice
from automl.settings.key_lines import KeyPath, key_lines
from automl.settings.option import Option
from automl.settings.parsing import PARTS, parse_options
from automl.settings.schema import SearchConfig

# How messages name an option: by its flag, or by part and name.
NAMED = re.compile(rf"(?<![\w-])--(?P<flag>[a-z][a-z-]*[a-z])|\b(?P<part>{'|'.join(PARTS)})\.(?P<name>\w+)")


class SettingsFileError(ValueError):
    """A TOML file has a bad option. The message begins with the file and the line."""


@dataclasses.dataclass(frozen=True)
class SettingsFile:
    """The options of a TOML file: keys are the flags' names, and `[set.PART]` holds single options of a part.

    Attributes:
        path: the path of the file.
        text: its content.
        values: options by name, as `SearchConfig` takes them.
    """

    path: Path
    text: str
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> SettingsFile:
        """Raises SettingsFileError if the file cannot be read or has a key or a value that no option has."""
        try:
            text = path.read_text(encoding="utf-8-sig")
            content = tomllib.loads(text)
        except OSError as error:
            raise SettingsFileError(
                f"{path} cannot be read: {error.strerror}; name another file with --config."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SettingsFileError(f"{path} is not TOML: {error}.") from None
        file = cls(path, text, {})
        options = SearchConfig.options()
        values: dict[str, Any] = {}
        written: dict[str, str] = {}  # the key of each option, with `-` or `_`
        for key, value in content.items():
            with file.naming_line((key,)):
                name = key.replace("-", "_")
                if name not in options:
                    validate_choice("setting", key, [option.key for option in options.values()])
                if name in written:
                    raise ValueError(f"{options[name].flag} is set twice, as {written[name]!r} and {key!r}; drop one.")
                written[name] = key
                values[name] = file._set_tables(value) if name == "set" else _read(options[name], key, value)
        return dataclasses.replace(file, values=values)

    def overridden_by(self, flags: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the file, overridden by flags. `set` has those of the file, then those of the flags."""
        values = {**self.values, **flags}
        if "set" in self.values and "set" in flags:
            values["set"] = self.values["set"] + flags["set"]
        return values

    @contextlib.contextmanager
    def locating_errors(self, flags: Mapping[str, Any]) -> Iterator[None]:
        """Adds the file and the line to errors about an option that this file sets.

        Args:
            flags: the options that flags override; an error about one of these is not an error of the file.
        """
        try:
            yield
        except ValueError as error:
            line = self._line_of_option(error, flags)
            if line is None:
                raise
            raise SettingsFileError(f"{self.path}, line {line}: {error}") from error

    @contextlib.contextmanager
    def naming_line(self, key: KeyPath) -> Iterator[None]:
        """Adds the file and the line of a key to any error."""
        try:
            yield
        except SettingsFileError:
            raise
        except ValueError as error:
            line = self._lines.get(key)
            place = str(self.path) if line is None else f"{self.path}, line {line}"
            raise SettingsFileError(f"{place}: {error}") from None

    def _set_tables(self, tables: Any) -> tuple[str, ...]:
        """Converts `[set.PART]` tables to texts for --set."""
        if not isinstance(tables, dict):
            raise ValueError("'set' holds tables by group; write for example [set.task] and below it epochs = 8.")
        texts: list[str] = []
        for part, table in tables.items():
            with self.naming_line(("set", part)):
                validate_choice("group of options", part, PARTS)
                if not isinstance(table, dict):
                    raise ValueError(
                        "'set' holds tables by group; write for example [set.task] and below it epochs = 8."
                    )
            for name, value in table.items():
                with self.naming_line(("set", part, name)):
                    text = f"{part}.{name}={json.dumps(value, default=str)}"
                    parse_options([text])  # some values, such as NaN, cannot be stored
                texts.append(text)
        return tuple(texts)

    @functools.cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return key_lines(self.text)

    def _line_of_option(self, error: ValueError, flags: Mapping[str, Any]) -> int | None:
        """The line of the first option in an error's message that this file sets and no flag overrides, or None."""
        replaced = {(name,) for name in flags if name != "set"}
        replaced |= {("set", *text.partition("=")[0].strip().split(".", 1)) for text in flags.get("set", ())}
        keys = {(path[0].replace("-", "_"), *path[1:]): line for path, line in self._lines.items()}
        given = (keys[path] for path in _named_options(error) if path in keys and path not in replaced)
        return next(given, None)


def _named_options(error: ValueError) -> Iterator[KeyPath]:
    """The options that an error's message names before its semicolon, after which the advice begins."""
    if isinstance(error, UnknownNameError):
        for part in PARTS:
            if error.what == f"{part} option":
                yield ("set", part, error.name)
        yield from ((name,) for name, option in SearchConfig.options().items() if option.noun == error.what)
    for named in NAMED.finditer(str(error).partition(";")[0]):
        if named["flag"] is not None:
            yield (named["flag"].replace("-", "_"),)
        else:
            yield ("set", named["part"], named["name"])


def _read(option: Option, key: str, value: Any) -> Any:
    """The value of a key, converted and checked. Raises ValueError for a bad one."""
    if isinstance(value, dict):
        tables = f"; options of the {option.name} belong in [set.{option.name}]" if option.name in PARTS else ""
        raise ValueError(f"{key!r} is a table, where one value is expected{tables}.")
    value = option.read(value)
    option.check(value)
    return value
