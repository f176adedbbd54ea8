"""The command `propose`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from automl.cli import startup
from automl.cli.commands import further_command
from automl.cli.terminal import print
from automl.db.store import Store
from automl.paths import store_address
from automl.status import shown_state


def propose_child(name: str, store_option: str | None, *, spec: Path | None, tokens: str | None) -> None:
    """Queues a child that the user proposes."""
    from automl.requests import read_spec, request_child

    if (spec is None) == (tokens is None):
        raise ValueError("Give the child as either --spec FILE or --tokens 0,2,1,…")
    startup.finish()
    with contextlib.closing(Store(store_address(store_option), upgrade=True)) as store:
        if spec is not None:
            request_child(store, name, spec=read_spec(spec))
        else:
            request_child(store, name, tokens=_parse_tokens(tokens or ""))
        search = store.search(name)
        print(f"Queued for {name}: it comes with the next batch that is proposed (see automl show {name}).")
        if not store.is_held(name):
            print(f"{name} is not running ({shown_state(store, search)}). Go on with: {further_command(store, search)}")


def _parse_tokens(text: str) -> tuple[int, ...]:
    parts = text.replace(",", " ").replace("[", " ").replace("]", " ").split()
    if not parts or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--tokens {text!r} is not a list of whole numbers; write for example 0,2,1.")
    return tuple(map(int, parts))
