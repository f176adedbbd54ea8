"""The line of each key in a TOML text. `tomllib` reads values and keeps no places."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str, ...]  # a key with the keys of the tables that it stands in: ("set", "task", "epochs")

# Comments and texts are one token each, so that a bracket or an equals sign in one of them is not taken for syntax.
TOKEN = re.compile(
    r"""
      (?P<comment> \#[^\n]* )
    | (?P<text>
        \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2}   # up to two quotes may stand before the three that end a text
      | '''.*?''''{0,2}
      | "(?:\\.|[^"\\\n])*"
      | '[^'\n]*'
      )
    | (?P<mark> [\[\]{}=,\n] )
    | (?P<other> [^\#"'\[\]{}=,\n]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which each key and each table first stands.

    Args:
        text: valid TOML, as `tomllib` has read it.
    """
    lines: dict[KeyPath, int] = {}
    for path, start in _Keys(text):
        for length in range(1, len(path) + 1):  # `set.task.epochs = 8` also is the first line of `set`
            lines.setdefault(path[:length], text.count("\n", 0, start) + 1)
    return lines


class _Keys:
    """Yields the whole path of each key with the place where it begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [(match.lastgroup, match[0], match.start()) for match in TOKEN.finditer(text)]
        self._next = 0

    def __iter__(self) -> Iterator[tuple[KeyPath, int]]:
        table: KeyPath = ()
        while (start := self._skip_to_statement()) is not None:
            if self._text[start] == "[":
                table = _path_of(self._up_to("\n"))
                yield table, start
            else:
                yield from self._pair(table, start)

    def _pair(self, table: KeyPath, start: int) -> Iterator[tuple[KeyPath, int]]:
        """A key and those in its value, which ends at the end of a line, at a comma or at a bracket."""
        path = table + _path_of(self._up_to("=") + "= 0")
        yield path, start
        while self._next < len(self._tokens):
            token = self._tokens[self._next][1]
            if token in ("\n", ",", "}", "]"):
                return
            self._next += 1
            if token == "{":
                yield from self._inside(path, "}")
            elif token == "[":
                yield from self._inside(path, "]")

    def _inside(self, path: KeyPath, end: str) -> Iterator[tuple[KeyPath, int]]:
        """The keys between two brackets: pairs between braces, values between square brackets."""
        while self._next < len(self._tokens):
            kind, token, place = self._tokens[self._next]
            if token == end:
                self._next += 1
                return
            if end == "}" and (kind == "text" or (kind == "other" and token.strip())):
                yield from self._pair(path, place + len(token) - len(token.lstrip()))
                continue
            self._next += 1
            if token in ("{", "["):
                yield from self._inside(path, "}" if token == "{" else "]")

    def _skip_to_statement(self) -> int | None:
        """The place of the next table or key; None at the end."""
        for kind, token, place in self._tokens[self._next :]:
            if kind != "comment" and token.strip():
                return place + len(token) - len(token.lstrip())
            self._next += 1
        return None

    def _up_to(self, end: str) -> str:
        """The text up to a mark; the next token is the one behind it."""
        first = self._next
        while self._next < len(self._tokens) and self._tokens[self._next][1] != end:
            self._next += 1
        found = "".join(token for kind, token, _ in self._tokens[first : self._next] if kind != "comment")
        self._next += 1
        return found


def _path_of(written: str) -> KeyPath:
    """The keys of a table's heading or of `KEY = 0`, as TOML reads them: bare, quoted or dotted."""
    path: KeyPath = ()
    found: Any = tomllib.loads(written.strip())
    while found and isinstance(found, dict | list):
        if isinstance(found, list):
            found = found[0]
            continue
        ((key, found),) = found.items()
        path += (key,)
    return path
