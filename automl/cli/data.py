"""How data were read, as commands say it."""

from __future__ import annotations

from collections.abc import Callable

from child_trainers.data.summary import DataSummary


def say_data(summary: DataSummary, say: Callable[[str], None], *, doubts: bool) -> None:
    """Says it, and where `doubts` is set, what may be a mistake: only once in a search's life."""
    say(f"Data: {summary.line}")
    for doubt in summary.doubts if doubts else ():
        say(f"Warning: {doubt}")
