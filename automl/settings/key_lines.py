"""Finds the line of each key in a TOML text. `tomllib` reads values without their positions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str, ...]  # the keys of the enclosing tables, then the key: ("set", "task", "epochs")

# A comment or a text is one token, so that a bracket or an equals sign in it is not taken for syntax.
TOKEN = re.compile(
    r"""
      (?P<comment> \#[^\n]* )
    | (?P<text>
        \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2}   # up to two quotes may come before the three that end a text
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
    """The first line of each key and each table, counted from 1.

    Args:
        text: valid TOML, which `tomllib` has parsed.
    """
    lines: dict[KeyPath, int] = {}
    for path, start in _Keys(text):
        for length in range(1, len(path) + 1):  # `set.task.epochs = 8` also is the first line of `set`
            lines.setdefault(path[:length], text.count("\n", 0, start) + 1)
    return lines


class _Keys:
    """Yields the full path of each key and the offset at which the key begins."""

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
        """A key and the keys in its value. The value ends at a line end, a comma or a closing bracket."""
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
            kind, token, offset = self._tokens[self._next]
            if token == end:
                self._next += 1
                return
            if end == "}" and (kind == "text" or (kind == "other" and token.strip())):
                yield from self._pair(path, offset + len(token) - len(token.lstrip()))
                continue
            self._next += 1
            if token in ("{", "["):
                yield from self._inside(path, "}" if token == "{" else "]")

    def _skip_to_statement(self) -> int | None:
        """The offset of the next table or key; None at the end."""
        for kind, token, offset in self._tokens[self._next :]:
            if kind != "comment" and token.strip():
                return offset + len(token) - len(token.lstrip())
            self._next += 1
        return None

    def _up_to(self, end: str) -> str:
        """The text up to a mark. Afterwards, the next token is the one after the mark."""
        first = self._next
        while self._next < len(self._tokens) and self._tokens[self._next][1] != end:
            self._next += 1
        text = "".join(token for kind, token, _ in self._tokens[first : self._next] if kind != "comment")
        self._next += 1
        return text


def _path_of(written: str) -> KeyPath:
    """The keys in a table's header or in `KEY = 0`, parsed by `tomllib`: bare, quoted or dotted."""
    path: KeyPath = ()
    value: Any = tomllib.loads(written.strip())
    while value and isinstance(value, dict | list):
        if isinstance(value, list):
            value = value[0]
            continue
        ((key, value),) = value.items()
        path += (key,)
    return path
