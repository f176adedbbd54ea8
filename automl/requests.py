"""Requests a user's own child for a search: checks its spec or tokens and queues it for the coordinator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path

from automl.db.records import Request, Search
from automl.db.store import Store
from automl.search_spaces.space import Space
from automl.search_spaces.spec import Encodable, Json, Parsable, canonical_hash, spec_to_json
from automl.stored import in_workdir, load_space


def request_child(store: Store, name: str, *, tokens: tuple[int, ...] | None = None, spec: Json = None) -> Request:
    """Queues a child for the next batch that the search proposes.

    Args:
        tokens: of the child; if None, `spec` is used.
        spec: as `export --format json` writes it, or an object of decisions and their values, or the text of an update
            rule.

    Raises:
        ValueError: the space has no such child, or the search already has it.
    """
    search = store.search(name)
    with in_workdir(search, missing_ok=True):
        space = load_space(search)
        tokens = _tokens(space, spec) if tokens is None else tokens
        walk = space.decode(tokens)
    child_hash = canonical_hash(walk.spec, tokens)
    same = next((child for child in store.children(search.id) if child.canonical_hash == child_hash), None)
    if list(tokens) in [request.tokens for request in store.requests(search.id)]:
        raise ValueError(f"This child is already waiting for the next batch of {name!r}.")
    if same is not None:
        what = "this child" if same.tokens == list(tokens) else "an equal child"
        raise ValueError(f"{name!r} already has {what}: child {same.number}.")
    _refuse_if_closed(store, search)
    return store.request_child(name, tokens, spec=spec_to_json(walk.spec))


def read_spec(path: Path) -> Json:
    """Reads the spec in a file: JSON, a JSON export with the key `spec`, or the text of an update rule.

    Raises:
        ValueError: the file cannot be read.
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


def _tokens(space: Space, spec: Json) -> tuple[int, ...]:
    example = space.survey()[0].spec
    if isinstance(spec, str) and isinstance(example, Parsable):
        return _of_text(space, example.parse(spec))
    if isinstance(spec, dict) and isinstance(example, Encodable) and spec.keys() == _fields(example):
        try:
            values = example.decisions(spec)
        except (KeyError, TypeError, AttributeError):
            raise ValueError(
                f"This is no spec of a {type(example).__name__} as export --format json writes it."
            ) from None
        tokens = space.encode(values, more=True)
        made = spec_to_json(space.decode(tokens).spec)
        if made != spec:
            raise ValueError(f"The space has no such child; the nearest one is {json.dumps(made)}.")
        return tokens
    if not isinstance(spec, Mapping):
        raise ValueError("A spec of this space is a JSON object with a value for every decision; or give --tokens.")
    return space.encode(spec)


def _of_text(space: Space, spec: Parsable) -> tuple[int, ...]:
    """The tokens of a parsed spec, or of an equal one that the space has. Raises ValueError."""
    refusals = []
    first = space.begin().decision
    for longer in spec.longer():
        try:
            return space.encode(longer.decisions(spec_to_json(longer)))
        except ValueError as error:
            refusals.append(error)
    # An error about the first decision may only mean that the space has longer forms; others are more useful.
    name = "" if first is None else repr(first.name)
    raise next((error for error in refusals if name not in str(error)), refusals[0])


def _fields(spec: object) -> Set[str]:
    """The keys of a spec's JSON object; none if it is no object."""
    stored = spec_to_json(spec)
    return stored.keys() if isinstance(stored, dict) else set()


def _refuse_if_closed(store: Store, search: Search) -> None:
    """Raises ValueError if the search proposes no more children."""
    step = store.last_step(search.id)
    if step is not None and not step.stats["proposed"]:
        raise ValueError(
            f"{search.name!r} proposes no more children ({search.state}); start a new search with this one."
        )
