"""Every key that `tomllib` reads has a line, whatever texts, comments, arrays and tables surround it."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from automl.settings.key_lines import key_lines

# Texts and comments that look like syntax.
VALUES = ['"a # = [\\" "', "'{ \\'", '"""\n[a]\nb = "1"\n"""', "'''a = '1'\n'''", '"""a"""""', "1979-05-27", "0x1f"]
keys = st.text("abz09_-", min_size=1, max_size=3) | st.text("a\"'.#=[]{}, \n\\é", max_size=3).map(json.dumps)


def array(items: list[str]) -> str:
    return "[ " + ", # ] = {\n ".join(items) + "\n]"


def inline_table(table: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"


values = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3).map(array) | st.dictionaries(keys, inner, max_size=3).map(inline_table),
    max_leaves=6,
)
paths = st.lists(keys, min_size=1, max_size=3).map(" . ".join)
statements = st.one_of(
    st.builds("{} = {}".format, paths, values),
    st.builds("[ {} ]  # [b]".format, paths),
    st.builds("[[{}]]".format, paths),
    st.just("# [c]\n"),
)


def keys_read(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths of all keys in what `tomllib` has read."""
    inner = [((*path, key), item) for key, item in value.items()] if isinstance(value, dict) else []
    inner += [(path, item) for item in value] if isinstance(value, list) else []
    return {path}.union(*(keys_read(item, place) for place, item in inner)) - {()}


@given(st.lists(statements, max_size=6).map("\n".join))
@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_every_key_has_a_line(text: str) -> None:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = key_lines(text)
    assert set(lines) == keys_read(content)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
