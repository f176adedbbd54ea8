"""A person's own child on its way into a search: from a spec or tokens to a row that the coordinator answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl.db.records import Request, Search
from automl.db.store import Store
from automl.search_spaces.space import Space
from automl.search_spaces.walk import canonical_hash, spec_to_json
from automl.stored import in_workdir, load_space


def request_child(store: Store, name: str, *, tokens: tuple[int, ...] | None = None, spec: Any = None) -> Request:
    """Queues a child for the next batch that the search proposes.

    Args:
        tokens: of the child; or
        spec: as `export --format json` writes it, or an object of decisions and their values; an update rule also as
            its text.

    Raises:
        ValueError: it is no child of the search's space, or one that the search has already.
    """
    search = store.search(name)
    with in_workdir(search, missing_ok=True):
        space = load_space(search)
        tokens = _tokens(space, spec) if tokens is None else tokens
        walk = space.decode(tokens)
    fingerprint = canonical_hash(walk.spec, tokens)
    same = next((child for child in store.children(search.id) if child.canonical_hash == fingerprint), None)
    if list(tokens) in [request.tokens for request in store.requests(search.id)]:
        raise ValueError(f"This child waits for the next batch of {name!r} already.")
    if same is not None:
        what = "this child" if same.tokens == list(tokens) else "a child that counts as the same"
        raise ValueError(f"{name!r} has {what} already: it is child {same.number}.")
    _refuse_if_closed(store, search)
    return store.request_child(name, tokens, spec=spec_to_json(walk.spec))


def read_spec(path: Path) -> Any:
    """The spec in a file: JSON, by itself or as the key `spec` of what `export` wrote, or an update rule's text.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text.") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith(("{", "[")):
            raise ValueError(f"{path} is not JSON: {error}.") from None
        return text.strip()
    return content["spec"] if isinstance(content, dict) and "spec" in content else content


def _tokens(space: Space, spec: Any) -> tuple[int, ...]:
    kind = type(space.survey()[0].spec)
    if isinstance(spec, str) and hasattr(kind, "parse"):
        return _of_text(space, kind.parse(spec))
    if hasattr(kind, "decisions") and isinstance(spec, Mapping) and spec.keys() == _fields(kind):
        try:
            values = kind.decisions(spec)
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"This is no spec of a {kind.__name__} as export --format json writes it.") from None
        tokens = space.encode(values, more=True)
        made = spec_to_json(space.decode(tokens).spec)
        if made != spec:
            raise ValueError(f"The space has no such child; the nearest it has is {json.dumps(made)}.")
        return tokens
    if not isinstance(spec, Mapping):
        raise ValueError("A spec of this space is a JSON object with a value for every decision; or give --tokens.")
    return space.encode(spec)


def _of_text(space: Space, rule: Any) -> tuple[int, ...]:
    """The tokens of an update rule, with as many groups as the space has. Raises ValueError."""
    refusals = []
    for longer in rule.longer():
        try:
            return space.encode(type(rule).decisions(spec_to_json(longer)))
        except ValueError as error:
            refusals.append(error)
    raise next((error for error in refusals if "'groups'" not in str(error)), refusals[0])


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _refuse_if_closed(store: Store, search: Search) -> None:
    step = store.last_step(search.id)
    if step is not None and not step.figures["proposed"]:
        raise ValueError(
            f"{search.name!r} proposes no more children ({search.state}); start a new search with this one."
        )
