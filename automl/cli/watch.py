"""The commands `watch`, `logs` and `stop`, for a search that runs in another terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from automl.cli import startup
from automl.cli.commands import further_command, open_for_reading, resume_command
from automl.cli.terminal import print, print_lines
from automl.cli.views import make_view
from automl.db.records import Attempt, is_search_name
from automl.db.store import Store
from automl.endings import GRACE_SECONDS
from automl.paths import artefacts_of, store_address
from automl.pools import INLINE_DEVICE
from automl.status import is_interrupted, shown_state
from automl.wording import counted

POLL_SECONDS = 0.5


def watch(name: str, store_option: str | None, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Shows a search until it ends, as its own terminal does. Only reads the store."""
    startup.finish()  # after Ctrl-C a live view restores the terminal
    with open_for_reading(store_option) as store:
        search = store.search(name)
        view = make_view(store, name)
        if store.is_held(name):
            with view.live():
                while store.is_held(name):
                    view.turn()
                    pause(POLL_SECONDS)
            search = store.search(name)
        view.result()
        cause = f" ({search.cause})" if search.cause else ""
        trained = counted(search.num_trained, "child", "children")
        print(f"{name} is {shown_state(store, search)}{cause}: {trained} trained.")
        if is_interrupted(store, search):
            print(f"Its process is gone. Take it over with: {resume_command(store, search.name)}")


def print_logs(name: str, number: int, store_option: str | None) -> None:
    """Prints the output of every attempt at a child, oldest first."""
    with open_for_reading(store_option) as store:
        search = store.search(name)
        children = store.children(search.id, number=number)
        if not children:
            raise ValueError(f"{name!r} has no child {number}; see automl show {name}.")
        attempts = store.attempts(children[0].id)
        logs = str(artefacts_of(store, name)) if is_search_name(name) else None
    if not attempts:
        print(f"Child {number} of {name} has no attempt yet.")
    for index, attempt in enumerate(attempts, start=1):
        ending = attempt.fault or ("running" if attempt.ended is None else "trained")
        status = "" if attempt.exit_code is None else f", exit code {attempt.exit_code}"
        status += "" if attempt.signal is None else f", signal {attempt.signal}"
        print(f"== attempt {index} of child {number}: worker {attempt.worker} on {attempt.device}, {ending}{status}")
        print_lines(_output_of(attempt, logs))


def _output_of(attempt: Attempt, logs: str | None) -> str:
    if attempt.log is not None:
        return attempt.log.rstrip() or "(it printed nothing)"
    if attempt.device == INLINE_DEVICE:
        return "(it printed to the terminal)"
    # The attempt has not delivered a result yet, or ended without one.
    where = "" if logs is None else f", in {logs} of the machine that it ran on"
    return f"(its output is in the log of its worker{where})"


def stop(name: str, store_option: str | None) -> None:
    """Asks the process that runs a search to stop it."""
    startup.finish()
    with contextlib.closing(Store(store_address(store_option), upgrade=True)) as store:
        search = store.request_stop(name)
        if store.is_held(name):
            print(f"Asked {name} to stop: children that run get {GRACE_SECONDS:.0f} s.")
            print(f"Go on later with: {resume_command(store, name)}")
        else:
            print(f"{name} is not running ({shown_state(store, search)}). Go on with: {further_command(store, search)}")
