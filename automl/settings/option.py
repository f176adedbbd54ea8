"""The declaration of an option of a search, and how its values are read and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from automl.search_spaces.names import validate_choice
from automl.settings.parsing import count_text, parse_count, parse_seconds, seconds_text

KINDS: dict[str, tuple[tuple[type, ...], str]] = {  # by annotation: the types that fit, and the words for them
    "str": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "tuple[str, ...]": ((tuple,), "a list of texts"),
}


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit: the word for its values, and the functions that parse a text and that write one."""

    word: str
    parse: Callable[[str], Any]
    text: Callable[[Any], str]


UNITS = {"seconds": Unit("time", parse_seconds, seconds_text), "count": Unit("count", parse_count, count_text)}


@dataclasses.dataclass(frozen=True)
class OnResume:
    """How a resume takes an option that may change after a search has begun.

    Attributes:
        help: what the option does at a resume, if that differs from a new search.
        default: words for the value that is used if the option is not given.
    """

    help: str | None = None
    default: str | None = None


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a search. Its flag, TOML key, Python argument, check and documentation all come from here.

    Attributes:
        name: the argument in Python; with dashes also the key in TOML and, after `--`, the flag.
        kind: the type as annotated, one of `KINDS`.
        optional: whether None is allowed; it means the default in `default_text`.
        default: the value if the option is not given.
        help: one sentence.
        group: the heading under which `--help` and the reference page list the option.
        unit: `seconds` or `count`; texts such as `10m` or `300k` are then read as numbers.
        words: texts that are allowed in place of a number.
        above, least, most: the allowed range.
        choices: the allowed values, or where to find them, as `MODULE:NAME`.
        called: the word for a value in the message about an unknown one.
        metavar: the placeholder for the value in `--help`.
        default_text: words for a default that depends on other options or on the machine.
        on_resume: how a resume takes the option; None if a resume cannot change it.
    """

    name: str
    kind: str
    optional: bool
    default: Any
    help: str
    group: str
    unit: str | None = None
    words: tuple[str, ...] = ()
    above: float | None = None
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] | str | None = None
    called: str | None = None
    metavar: str | None = None
    default_text: str | None = None
    on_resume: OnResume | None = None

    @property
    def flag(self) -> str:
        return f"--{self.key}"

    @property
    def key(self) -> str:
        """The key in a TOML file. There, `_` may stand for `-`."""
        return self.name.replace("_", "-")

    @property
    def noun(self) -> str:
        """The word for a value in the message about an unknown one."""
        return self.called or self.name.replace("_", " ")

    @property
    def default_words(self) -> str | None:
        """The default as a text; None if the default is None, off or empty."""
        if self.default_text is not None or self.default is None or self.default is False or self.default == ():
            return self.default_text
        return self.text_of(self.default)

    def text_of(self, value: Any) -> str:
        """A value in the form in which a flag takes it."""
        return str(value) if self.unit is None else UNITS[self.unit].text(value)

    @property
    def unit_word(self) -> str | None:
        """The word for a value in the option's unit, time or count; None without a unit."""
        return None if self.unit is None else UNITS[self.unit].word

    def known_choices(self) -> Iterable[str] | None:
        """The allowed values; None if there is no such list."""
        return pkgutil.resolve_name(self.choices) if isinstance(self.choices, str) else self.choices

    def read_flag(self, given: Any) -> Any:
        """Converts the value of a flag. A text that is not a number stays a text, which `check` refuses.

        Raises:
            ValueError: the text is not in the option's unit.
        """
        if self.kind == "int" and self.unit is None:
            with contextlib.suppress(ValueError):
                return int(given)
        return self.read(given)

    def read(self, given: Any) -> Any:
        """Converts a value from a TOML file or from Python: a list to a tuple, a text with a unit to a number.

        Raises:
            ValueError: the text is not in the option's unit.
        """
        if isinstance(given, list):
            return tuple(given)
        if isinstance(given, os.PathLike):
            return os.fspath(given)
        if self.unit is not None and isinstance(given, str):
            return UNITS[self.unit].parse(given)
        if self.unit == "count" and isinstance(given, float) and given.is_integer():
            return int(given)  # 1.5e6 is a float in TOML and in Python
        return given

    def check(self, value: Any) -> None:
        """Raises ValueError if the option cannot have this value."""
        if value is None and self.optional:
            return
        if value in self.words:
            return
        types, kind = KINDS[self.kind]
        if type(value) not in types or (isinstance(value, tuple) and any(type(item) is not str for item in value)):
            raise ValueError(f"{self.flag} is {value!r}; it must be {' or '.join((kind, *self.words))}.")
        if self.above is not None and value <= self.above:
            raise ValueError(f"{self.flag} is {value}; it must be above {self.above}.")
        if self.least is not None and value < self.least:
            raise ValueError(f"{self.flag} is {value}; it must be {self.least} or more.")
        if self.most is not None and not value <= self.most:  # also refuses NaN
            raise ValueError(f"{self.flag} is {value}; it must be at most {self.most}.")
        if (choices := self.known_choices()) is None:
            return
        if self.called is not None:
            validate_choice(self.called, value, choices)
        elif value not in choices:
            raise ValueError(f"{self.flag} is {value!r}; it must be {' or '.join(choices)}.")


def option(default: Any, help: str, **declared: Any) -> Any:
    """The field of an option in a configuration class; `declared` are further attributes of `Option`."""
    return dataclasses.field(default=default, metadata={"help": help, **declared})


def options_of(kind: type) -> dict[str, Option]:
    """The options that a configuration class declares, by name, in its order."""
    options = {}
    for field in dataclasses.fields(kind):
        kind_of_value, *others = str(field.type).split(" | ")
        options[field.name] = Option(field.name, kind_of_value, "None" in others, field.default, **field.metadata)
    return options
