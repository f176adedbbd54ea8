"""Checks the form of stored settings. A store may come from another person or be damaged, so settings of another form
are refused, with one sentence, before they are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from automl.db.records import StoreError

Check = Callable[[str, Any], "str | None"]  # takes name and value of a setting, returns what is wrong, or None


def _kind(words: str, fits: Callable[[Any], bool]) -> Check:
    def check(name: str, value: Any) -> str | None:
        shown = repr(value)
        return None if fits(value) else f"{name} is {shown if len(shown) <= 60 else f'{shown[:60]}…'}, not {words}"

    return check


def _optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _table(fields: Mapping[str, Check], later: Mapping[str, Check] | None = None, *, exact: bool = False) -> Check:
    """A check of settings by name. Those of `later` may be missing. With `exact`, unknown ones are refused."""

    def check(name: str, value: Any) -> str | None:
        if not isinstance(value, dict):
            return _object(name, value)
        prefix = f"{name}." if name else ""
        missing = next((field for field in fields if field not in value), None)
        if missing is not None:
            return f"{prefix}{missing} is missing"
        known = {**fields, **(later or {})}
        unknown = next((field for field in value if field not in known), None)
        if exact and unknown is not None:
            return f"{prefix}{unknown} is not a setting"
        errors = (known[field](f"{prefix}{field}", given) for field, given in value.items() if field in known)
        return next((error for error in errors if error is not None), None)

    return check


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


_text = _kind("a text", lambda value: isinstance(value, str))
_path = _kind("a path", lambda value: isinstance(value, str) and value != "" and "\0" not in value)
_switch = _kind("true or false", lambda value: isinstance(value, bool))
_natural = _kind("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0)
_positive = _kind("a whole number above 0", lambda value: _is_whole(value) and value > 0)
_seconds = _kind("a number above 0", lambda value: _is_number(value) and value > 0)
_object = _kind("an object of settings", lambda value: isinstance(value, dict))
_texts = _kind(
    "a list of texts", lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value)
)
_versions = _kind(
    "an object of whole numbers", lambda value: isinstance(value, dict) and all(map(_is_whole, value.values()))
)

_file = _optional(_table({"path": _path, "attribute": _text, "sha256": _text, "text": _text}, exact=True))
_goal = _optional(_table({"metric": _text, "minimize": _switch}, exact=True))
_named = {"name": _text, "preset": _optional(_text), "options": _object}
_pair = _kind(
    "a pair of numbers", lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
)
_wholes = _kind("a list of whole numbers", lambda value: isinstance(value, list) and all(map(_is_whole, value)))
_list = _kind("a list", lambda value: isinstance(value, list))
# How the data were read. These values also get into exported source code.
_reading = _table({}, {"options": _object, "vocabulary": _texts, "input_shape": _wholes, "num_classes": _positive})
_read = {
    "fingerprint": _optional(_text),
    "constants": _optional(_object),
    "brightness": _optional(_pair),
    "reading": _optional(_reading),
}
_task = {
    "name": _path,
    "recipe": _optional(_text),
    "options": _object,
    "goal": _goal,
    "file": _file,
    "data_dir": _optional(_path),
}
_settings = _table(
    {
        "space": _table({**_named, "file": _file}, {"order": _list}),
        "narrowing": _table({"fix": _texts, "only": _texts}),
        "schedule": _optional(_text),
        "limits": _table({"params": _optional(_positive), "flops": _optional(_positive)}, exact=True),
        "task": _table(_task, _read),
        "controller": _table(_named, {"file": _file}),
        "keep": _natural,
        "stall": _seconds,
        "child_timeout": _optional(_seconds),
        "keep_going": _switch,
        "policy_device": _text,
    },
    {
        "run": _table({"children": _optional(_natural), "time": _optional(_seconds), "workers": _natural}, exact=True),
        "behaviour": _versions,
        "compute": _table({"precision": _text, "xla": _optional(_switch), "devices": _positive}, exact=True),
        "workers_per_gpu": _positive,
        "workers_per_gpu_reason": _optional(_text),
        "early_stop": _text,
        "worker_memory": _optional(_positive),
        "recycling": _table({"after": _positive, "growth": _positive}, exact=True),
        "workdir": _optional(_path),
    },
)


def check_settings(settings: Any, *, started: bool = False) -> None:
    """Raises StoreError if stored settings are not of the form that automl writes.

    Args:
        started: whether the search was started; then the settings must contain its last run.
    """
    wrong = _settings("", settings)
    if wrong is None and started and "run" not in settings:
        wrong = "run is missing"
    if wrong is not None:
        raise StoreError(
            f"The search's settings in the store are not as automl writes them: {wrong}. Restore the store from a "
            "backup, or start a new search."
        )
