"""Detects repeated failures, after which a search pauses."""

from __future__ import annotations

from automl.db.records import Child, Fault, Search, State
from automl.db.store import Store

FIRST_FAILURES = 3
FAILURES_IN_A_ROW = 10


class RepeatedFailures:
    """Detects repeated failures among the children of one run.

    If no child was trained before this run, the search pauses when the first three children to end have failed, or when
    the first one returned no valid reward. Later it pauses when ten children in a row by number have failed in this run
    with the same fault.

    Args:
        first: the lowest number of a child that may be part of a row; earlier failures do not count.
        log: where the user finds the output of failed children; "" if there is none.
    """

    def __init__(self, store: Store, search: Search, *, first: int, log: str) -> None:
        self._store = store
        self._search_id = search.id
        self._log = log
        failed = store.children(search.id, states=[State.FAILED, State.LOST], first=first)
        self._failed_before = {child.number for child in failed}
        # If no child is trained yet, the first ones to end show whether children can be trained at all.
        self._began = store.now() if search.num_trained == 0 else None

    def cause(self, *, first: int) -> str | None:
        """The message for the user if the search should pause, else None.

        Args:
            first: the lowest number of a child that may be part of a row.
        """
        if not self._store.failed(self._search_id, first=first):
            return None
        first_ones = self._first_failures()
        row = first_ones or self._failures_in_a_row(first)
        if not row:
            return None
        if first_ones:
            many = "The first child" if len(first_ones) == 1 else f"The first {len(first_ones)} children"
        else:
            many = f"{FAILURES_IN_A_ROW} children in a row"
        log = f" Their log is {self._log}." if self._log else ""
        causes = {child.fault: f"{child.fault}: {child.message}" for child in row}  # the latest message of each fault
        return (
            f"{many} failed ({'; '.join(causes.values())}).{log} Fix the cause and resume, or resume with --keep-going."
        )

    def _first_failures(self) -> list[Child]:
        if self._began is None:
            return []
        ended = self._store.first_ended(self._search_id, since=self._began, count=FIRST_FAILURES)
        if ended and ended[0].fault == Fault.INVALID:  # every child would return the same kind of value
            self._began = None
            return ended[:1]
        if len(ended) < FIRST_FAILURES:
            return []
        self._began = None  # checked once
        return ended if all(child.state != State.TRAINED for child in ended) else []

    def _failures_in_a_row(self, first: int) -> list[Child]:
        row: list[Child] = []
        for child in self._store.children(self._search_id, first=first):
            failed = child.state in (State.FAILED, State.LOST) and child.number not in self._failed_before
            if not failed or (row and row[-1].fault != child.fault):
                row = []
            if failed:
                row.append(child)
            if len(row) == FAILURES_IN_A_ROW:
                return row
        return []
