"""Parses the texts of options: times, counts, and single options of a part of the search."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from automl.search_spaces.names import validate_choice

PARTS = ("space", "task", "controller")  # the parts of a search whose options --set and [set.PART] set
NUMBER = r"\d+(?:_\d+)*(?:\.\d+)?"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MULTIPLES = {"k": 10**3, "m": 10**6, "g": 10**9}


def parse_seconds(text: str) -> float:
    """`90`, `45s`, `10m`, `1.5h`, `2d` in seconds. Raises ValueError for any other text."""
    match = re.fullmatch(rf"({NUMBER})\s*([smhd]?)", text.strip().lower())
    if match is None or math.isinf(float(match[1])):
        raise ValueError(f"{text!r} is not a time; write for example 45s, 10m or 1.5h.")
    return float(match[1]) * SECONDS[match[2] or "s"]


def parse_count(text: str) -> int:
    """`300000`, `300k`, `1.5M`, `2G` as a whole number. Raises ValueError for any other text."""
    match = re.fullmatch(rf"({NUMBER})\s*([kmg]?)", text.strip().lower())
    if match is None or math.isinf(float(match[1])):
        raise ValueError(f"{text!r} is not a number; write for example 300000, 300k or 1.5M.")
    return round(float(match[1]) * MULTIPLES.get(match[2], 1))


def seconds_text(seconds: float) -> str:
    """The shortest text that `parse_seconds` reads as this time: 1800 is `30m`."""
    return _in_units(seconds, SECONDS)


def count_text(count: int) -> str:
    """The shortest text that `parse_count` reads as this number: 2,000,000,000 is `2G`."""
    return _in_units(count, {"": 1, "k": 10**3, "M": 10**6, "G": 10**9})


def parse_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The options of `PART.NAME=VALUE` texts, by part. If a name is given twice, the last value is used.

    Raises:
        ValueError: a text has another form, names an unknown part, or has a value that cannot be stored.
    """
    options: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for text in texts:
        key, equals, value = text.partition("=")
        part, dot, name = key.strip().partition(".")
        if not equals or not dot or not name:
            raise ValueError(f"--set {text!r} is not of the form GROUP.NAME=VALUE, for example space.strides=true.")
        options[validate_choice("group of options", part, PARTS)][name] = parse_value(value.strip())
    return options


def task_options(texts: Iterable[str]) -> dict[str, Any]:
    """The constants of a recipe, written `epochs=30` or `task.epochs=30`. Raises ValueError as `parse_options` does."""
    return parse_options(text if text.startswith("task.") else f"task.{text}" for text in texts)["task"]


def parse_value(text: str) -> Any:
    """The JSON value of a text, or the text itself if it is not JSON. Raises ValueError for a value that cannot be
    stored: a number that is not finite, or lists that are nested too deeply."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"An option cannot be {shown}: {str(error).rstrip('.')}.") from None
    return value


def _in_units(number: float, units: Mapping[str, int]) -> str:
    """The number in the largest unit that divides it, or else in the unit 1."""
    factor, unit = max((factor, unit) for unit, factor in units.items() if factor == 1 or number % factor == 0)
    return f"{number if number % factor else int(number // factor)}{unit}"
