"""Reports how data were read."""

from __future__ import annotations

from collections.abc import Callable

from automl.child_trainers.data.summary import DataSummary


def report_data(summary: DataSummary, note: Callable[[str], None], *, warnings: bool) -> None:
    """Reports how data were read: calls `note` with each sentence.

    Args:
        warnings: whether to warn of likely mistakes, which a search does only at its start.
    """
    note(f"Data: {summary.line}")
    for warning in summary.warnings if warnings else ():
        note(f"Warning: {warning}")
