"""Writes the reference page of the options from their declarations.

python -m automl.settings.reference docs/settings.md
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

from automl.settings.option import KINDS, Option
from automl.settings.schema import COUNT, WHOLE, SearchConfig

INTRODUCTION = """\
# Options of a search

Every option is declared once, in `automl/settings/schema.py`. `make docs` writes this page from these declarations. An
option has the same name in three places:

| | |
|---|---|
| a flag | `automl search first --max-params 300k` |
| a key of a TOML file | `max-params = "300k"`, read with `automl search first --config search.toml` |
| an argument in Python | `automl.search("first", max_params="300k")` |

Flags override the file. A time is a number of seconds, or a text such as `"45s"`, `"10m"`, `"1.5h"`, `"2d"`. A count
is a whole number, or a text such as `"300k"`, `"1.5M"`, `"2G"`. To give a list, repeat the flag once for each value.
"""

CLOSING = """
## Options that `set` gives to the space, the task and the controller

Each is written as `GROUP.NAME=VALUE`, with a value in JSON or a plain text. In a TOML file they are in tables:

| | |
|---|---|
| a flag | `--set space.strides=true --set task.epochs=8 --set controller.entropy=0.01` |
| a TOML file | `[set.task]`, and below it `epochs = 8` |
| an argument in Python | `set=["space.strides=true", "task.epochs=8"]` |

Options from a file and from flags are combined; if both give the same name, the flag overrides the file. The message
about a wrong name lists the known ones. A resume may change options of the task and of the controller, but not of the
space.
"""


def reference_page() -> str:
    """The page in Markdown."""
    options = sorted(SearchConfig.options().values(), key=lambda option: _groups().index(option.group))
    sections = (
        "\n".join(_section(group, list(members)))
        for group, members in itertools.groupby(options, key=lambda option: option.group)
    )
    return "\n".join([INTRODUCTION, *sections]) + CLOSING


def _groups() -> list[str]:
    """The headings, in the order of the declarations."""
    return list(dict.fromkeys(option.group for option in SearchConfig.options().values()))


def _section(group: str, options: list[Option]) -> Iterator[str]:
    yield f"## {group}\n"
    yield "| option | value | default | meaning | at a resume |"
    yield "|---|---|---|---|---|"
    for option in options:
        resume = "—"
        if option.on_resume is not None:
            resume = option.on_resume.help or "may change"
        yield f"| `{option.key}` | {_values(option)} | {_default(option)} | {option.help} | {resume} |"
    yield ""


def _values(option: Option) -> str:
    """The values that the option takes: its choices, or its type and range."""
    if (choices := option.known_choices()) is not None:
        return ", ".join(f"`{choice}`" for choice in choices)
    words = option.unit_word or KINDS[option.kind][1].removeprefix("a ")
    if option.metavar is not None:
        words = f"`{option.metavar}`" if option.kind == "str" else f"list of `{option.metavar}`"
    if option.above is not None:
        words += f" above {option.above:g}"
    if option.least is not None:
        words += f" from {option.least}"
    if option.most not in (None, WHOLE, COUNT):  # no user reaches the latter two
        words += f", at most {option.text_of(option.most)}"
    return " or ".join((words, *(f"`{word}`" for word in option.words)))


def _default(option: Option) -> str:
    """The default in words, or the value itself."""
    if option.default_text is not None or option.kind == "bool" or option.default_words is None:
        return option.default_text or ("off" if option.kind == "bool" else "none")
    return f"`{option.default_words}`"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the reference page of the options.")
    parser.add_argument("path", type=Path, help="the Markdown file to write, docs/settings.md")
    parser.parse_args().path.write_text(reference_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
