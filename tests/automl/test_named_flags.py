"""Every command in a message must exist, with every flag."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

from automl.cli.app import app

ROOT = Path(__file__).parents[2]
PACKAGES = ("automl", "child_trainers", "controllers", "db", "search_spaces")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FLAGS = {name: {flag for param in command.params for flag in param.opts} for name, command in COMMANDS.items()}
ALWAYS = {"--help", "--debug", "--version", "--query-gpu"}  # the last is a flag of nvidia-smi
NAMED = re.compile(r"\bautoml ((?:[a-z]+-)*[a-z]+)\b([^;:,\n()]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]|(?<![\w-])-[a-z]\b")


def messages(path: Path) -> list[tuple[int, str]]:
    """The texts of a source file with their lines; X replaces the fields of f-strings."""
    tree = ast.parse(path.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            told = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            found.append((node.lineno, told))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            found.append((node.lineno, node.value))
    return found


def dead_ends(text: str) -> list[str]:
    """Commands and flags in a text that do not exist."""
    wrong = []
    for name, rest in NAMED.findall(text):
        flags = set(FLAG.findall(rest)) - ALWAYS
        if name not in FLAGS:
            if flags:
                wrong.append(f"automl {name}")
            continue
        wrong += [f"automl {name} {flag}" for flag in sorted(flags - FLAGS[name])]
    known = set().union(*FLAGS.values()) | ALWAYS
    return wrong + [flag for flag in FLAG.findall(text) if flag.startswith("--") and flag not in known]


SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_name_only_existing_commands_and_flags(path):
    wrong = {line: found for line, text in messages(path) if (found := dead_ends(text))}
    assert not wrong, path


def test_flags_that_a_failed_child_suggests_are_flags_of_resume():
    """A user reads the message when the search exists already."""
    named = {flag for _, text in messages(ROOT / "child_trainers" / "task.py") for flag in FLAG.findall(text)}
    assert {"--minimize", "--maximize"} <= named <= FLAGS["resume"]


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/settings.md"])
def test_documents_name_only_existing_commands(name):
    text = (ROOT / name).read_text()
    wrong = [found for line in text.splitlines() if "automl " in line for found in dead_ends(line)]
    assert not [found for found in wrong if found.startswith("automl ")]


def test_the_test_would_notice():
    assert dead_ends("go on with: automl resume X --maximise acc") == [
        "automl resume X".replace(" X", " --maximise"),
        "--maximise",
    ]
    assert dead_ends("go on with: automl resum X --children 3") == ["automl resum"]
    assert dead_ends("see automl show X, or name it with --data-dir") == []
    assert dead_ends("drop --nothing") == ["--nothing"]
