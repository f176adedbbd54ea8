"""Prints how data were read."""

from __future__ import annotations

from collections.abc import Callable

from automl.child_trainers.data.summary import DataSummary


def say_data(summary: DataSummary, say: Callable[[str], None], *, doubts: bool) -> None:
    """Prints how data were read, through `say`.

    Args:
        doubts: also warn of likely mistakes, which a search does once.
    """
    say(f"Data: {summary.line}")
    for doubt in summary.doubts if doubts else ():
        say(f"Warning: {doubt}")
