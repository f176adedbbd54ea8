"""Output to the terminal: no stored text, log or name can control the terminal or hide its own content."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from automl.cli import terminal
from automl.cli.tables import print_table

STEERING = {
    "colour": "\x1b[31mred",
    "title of the window": "\x1b]0;owned\x07",
    "one byte of C1": "\x9b31m",
    "backspaces": "child 1\b2",
    "delete": "a\x7f",
    "null": "a\0b",
    "carriage return": "all is well\rnot",
    "a line of its own": "a\nError: b",
    "other breaks of a line": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "right to left": "\u202egnp.exe",
    "isolate": "\u2067a\u2069",
    "mark of direction": "\u200fa\u061c",
    "no width": "a\u200bb\ufeff\u00ad",
    "half a character": "a\ud800",
    "tag": "\U000e0041",
}
# Harmless characters; ZWNJ and ZWJ only join their neighbours.
SAFE = re.compile(
    r"[^\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0041]*"
)
PLAIN = ["child 7: 3x3x64", "Größe 0.5 ± 0.1", "深さ", "▁▂▃▄ …", "C:\\folder", "\u0645\u06cc\u200c\u062e", "👩\u200d🔬"]


@pytest.mark.parametrize("text", STEERING.values(), ids=list(STEERING))
def test_what_steers_a_terminal_is_shown_as_it_would_be_written(text, capsys):
    terminal.print("name", text, 3)
    (line,) = capsys.readouterr().out.split("\n")[:-1]
    assert SAFE.fullmatch(line) and "\\" in line
    terminal.print(text, file=sys.stderr)
    assert SAFE.fullmatch(capsys.readouterr().err[:-1])
    assert terminal.escaped("\x1b[31m\u202e") == "\\x1b[31m\\u202e"


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_of_any_script_is_unchanged(text, capsys):
    terminal.print(text)
    terminal.print_lines(text)
    assert capsys.readouterr().out == f"{text}\n{text}\n"


def test_a_log_keeps_its_lines_and_tabs(capsys):
    terminal.print_lines("one\r\n\ttwo\r50%\r100%\n\x1b[2Jthree")
    assert capsys.readouterr().out == "one\n\ttwo\n50%\n100%\n\\x1b[2Jthree\n"


def test_columns_are_as_wide_as_what_is_shown(capsys):
    print_table(["name", "state"], [["a\x1b", "paused"], ["long name", "running"]])
    assert capsys.readouterr().out.splitlines() == ["name       state", "a\\x1b      paused", "long name  running"]


def test_json_is_ascii(capsys):
    terminal.print_json({"name": "\x1b\x7f\u202e\ud800"})
    out = capsys.readouterr().out
    assert out.isascii() and "\\u001b\\u007f\\u202e\\ud800" in out


def test_a_terminal_that_lacks_a_character_gets_its_escape(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    terminal.print("0.5 ± 0.1")
    assert raw.getvalue() == b"0.5 \\xb1 0.1\n"


@pytest.mark.parametrize("text", STEERING.values(), ids=list(STEERING))
def test_the_live_view_escapes_too(text):
    out = io.StringIO()
    console = terminal.make_console(file=out, force_terminal=True, width=60, color_system=None)
    table = Table(text, box=None)
    table.add_row(Text(text))
    console.print(Panel(table, title=Text(text)))
    console.print(text, markup=False, highlight=False)
    drawn = out.getvalue().replace("\n", "")
    assert SAFE.fullmatch(drawn), repr(drawn)
