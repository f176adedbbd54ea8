"""Warns if `--time` will be over before the first child is trained."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from automl.db.records import Child, State
from automl.db.store import Store
from automl.estimate import expected_seconds, matrix_rate
from automl.listeners.base import SearchListener, TurnEnded
from automl.wording import duration

CHECK_SECONDS = 1.0
ADVICE = "Give more time, fewer epochs (--set task.epochs=N), less data (--set task.num_train=N) or smaller networks"


class TimeCheck(SearchListener):
    """Checks a run's first children until one is trained, and warns at most once.

    At the start, it estimates a child's time roughly, from its FLOPs, the data, the epochs and the present speed of
    this machine. Once a child has trained for an epoch, it uses the time of its epochs.

    Args:
        constants: returns the task's training constants; called once, in the first turn.
        time_left: seconds until `--time` is over.
        note: shows a sentence to the user.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        constants: Callable[[], Mapping[str, Any]],
        time_left: Callable[[], float],
        note: Callable[[str], None],
        *,
        workers: int,
        rate: Callable[[], float] = matrix_rate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._search = store.search(name)
        self._describe = constants
        self._time_left = time_left
        self._note = note
        self._workers = max(1, workers)
        self._rate = rate
        self._clock = clock
        self._checked_at: float | None = None
        self._finished = self._search.num_trained > 0

    @functools.cached_property
    def _constants(self) -> Mapping[str, Any]:
        return self._describe()

    def turn_ended(self, event: TurnEnded) -> None:
        self.turn()

    def turn(self) -> None:
        if self._finished:
            return
        if self._checked_at is None:
            self._checked_at = self._clock()
            expected = self._expected()
            left = self._time_left()
            if expected is not None and expected > left:
                self._warn(f"A child takes roughly {duration(expected)} here, and --time leaves {duration(left)}")
        elif self._clock() - self._checked_at >= CHECK_SECONDS:
            self._checked_at = self._clock()
            if self._store.progress(self._search.id).trained:
                self._finished = True
                return
            needed = self._needed()
            left = self._time_left()
            if needed is not None and needed > left:
                self._warn(f"The first child needs about {duration(needed)} more, and --time leaves {duration(left)}")

    def _warn(self, what: str) -> None:
        self._finished = True
        self._note(f"{what}, so perhaps no child will be trained. {ADVICE}.")

    def _expected(self) -> float | None:
        """Estimated seconds of the smallest of the children that start first; None if unknown. Each worker starts one,
        those with the most FLOPs first."""
        epochs, examples = self._constants.get("epochs"), self._constants.get("num_train")
        known = [flops for _, _, flops in self._store.upcoming(self._search.id, self._search.batch_size) if flops]
        if not known or not epochs or not examples:
            return None
        flops = sorted(known, reverse=True)[: self._workers][-1]
        fast = self._constants.get("precision", "float32") != "float32"
        return expected_seconds(
            flops, examples, epochs, threads=self._search.threads, rate=self._rate(), half_precision=fast
        )

    def _needed(self) -> float | None:
        """Seconds until the first running child is trained, from the epochs done so far; None if unknown."""
        epochs = self._constants.get("epochs")
        if not epochs:
            return None
        now = self._store.now()
        left = [
            (epochs - done) * (at - (child.started or at)) / done - (now - at)
            for child in self._store.children(self._search.id, states=[State.RUNNING])
            for done, at in [self._done(child)]
            if done
        ]
        return max(0.0, min(left)) if left else None

    def _done(self, child: Child) -> tuple[int, float]:
        """The number of epochs that a child has done, and when the last one ended."""
        measured = self._store.measurements(child.id)
        return (measured[-1].epoch, measured[-1].at) if measured else (0, 0.0)
