"""All printing to the terminal. Text from a store, a log or a file is escaped, so that it cannot control the terminal.

Escape sequences move the cursor, change what a click opens, or write into the shell's input. Direction marks change the
order in which text is displayed. Both are printed as Python escapes.
"""

from __future__ import annotations

import builtins
import json
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Unicode categories: control and format characters (zero width, direction), surrogates, line and paragraph separators.
ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # some scripts need them, and they only change how their neighbours are joined


def escaped(text: str) -> str:
    """The text as one line without characters that control a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped_character, text))


def _escaped_character(character: str) -> str:
    if character in JOINERS or unicodedata.category(character) not in ESCAPED:
        return character
    return repr(character)[1:-1]


def print(*values: object, file: TextIO | None = None, flush: bool = False) -> None:
    """Prints the values in one line, escaped. Characters that the terminal's encoding lacks are escaped, too."""
    _write(escaped(" ".join(map(str, values))), sys.stdout if file is None else file, flush=flush)


def print_lines(text: str) -> None:
    """Prints a text of several lines, such as a log. Each line is escaped, except for its tabs."""
    for line in re.split(r"\r\n|\r|\n", text):
        _write("\t".join(map(escaped, line.split("\t"))), sys.stdout, flush=False)


def print_json(value: Any) -> None:
    """Prints JSON for scripts, in ASCII, which needs only JSON's own escapes."""
    _write(json.dumps(value, indent=2, allow_nan=False), sys.stdout, flush=False)


def make_console(**options: Any) -> Console:
    """A rich console that escapes each piece of text just before drawing it."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text == "\n":
                    yield segment
                else:
                    lines = "\n".join(map(escaped, segment.text.split("\n")))
                    yield Segment(lines, segment.style)

    return EscapingConsole(**options)


def _write(line: str, file: TextIO, *, flush: bool) -> None:
    encoding = getattr(file, "encoding", None) or "utf-8"
    builtins.print(line.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=flush)
