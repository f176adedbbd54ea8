"""The search loop: proposes batches, waits for their children, learns from them in order, and ends the search."""

from __future__ import annotations

import dataclasses
import itertools
import time

from automl.child_trainers.task import Objective
from automl.child_trainers.workers.pool import Pool, PoolError
from automl.controller_records import pack_state, results_of
from automl.controllers.base import Controller, PendingChild
from automl.db import blobs
from automl.db.digest import state_hash
from automl.db.records import Child, Lease, NewChild, Search, SearchState, State, Step
from automl.db.store import Store
from automl.endings import Ending, Stop
from automl.failures import FAILURES_IN_A_ROW, RepeatedFailures
from automl.listeners.base import BatchProposed, StepLearned, TurnEnded
from automl.listeners.child_events import ChildEvents
from automl.listeners.dispatch import Listeners
from automl.proposer import Proposer

WAIT_SECONDS = 0.2


class Coordinator:
    """Runs one search under its lease.

    Every turn reads the progress of the search from the store, and every change is one transaction. After a crash, the
    next coordinator continues from the last transaction. K replicas share the controller: batch b is drawn from the
    state after batch b - K, and the controller learns from the batches in order. The search is therefore a function of
    its seed and the rewards, however many workers there are and in whatever order they finish.

    Source: Zoph & Le 2017 (arXiv:1611.01578), section 3.2, with a fixed lag in place of their unordered updates.

    Args:
        floor: the reward of a failed child; None for the lowest reward among the children of earlier batches.
        population: how many children of a batch are trained together.
        keep_going: do not pause after repeated failures.
        log: where the user finds the output of failed children.
        objective: the metric of early stopping, or None where children cannot be stopped.
        early_stop: the name of the pruner.
        listeners: receive the events of the search.

    Attributes:
        warnings: how the run differs from what the user asked for, one sentence each.
    """

    def __init__(
        self,
        store: Store,
        search: Search,
        lease: Lease,
        controller: Controller,
        proposer: Proposer,
        pool: Pool,
        *,
        floor: float | None,
        population: int = 1,
        keep_going: bool = False,
        log: str = "",
        objective: Objective | None = None,
        early_stop: str = "none",
        listeners: Listeners | None = None,
    ) -> None:
        self._listeners = listeners or Listeners()
        self._child_events = ChildEvents(store, search.id, self._listeners)
        self.warnings: list[str] = []
        self._objective = objective  # None after the check that children report it
        self._early_stop = early_stop
        self._store = store
        self._search = search
        self._lease = lease
        self._controller = controller
        self._proposer = proposer
        self._pool = pool
        self._floor = floor
        self._population = population
        self._keep_going = keep_going
        self._step = store.last_step(search.id)
        self._pending = {child.number: PendingChild(child.number, tuple(child.tokens)) for child in self._unconsumed()}
        self._failures = RepeatedFailures(store, search, first=self._window(), log=log)

    def run(self, budget: int | None, stop: Stop) -> Ending:
        """Runs turns until `budget` children are trained, the space is exhausted, failures pause it, or `stop` asks."""
        stopping = False
        if self._step is None and self._consume():
            self._pool.wake()
            self.notify_listeners()  # a pool in this process trains the first children before the turn ends
        while True:
            ending = self.turn(budget, stopping=stopping)
            self.notify_listeners()
            if ending is not None:
                return ending
            progress = self._store.progress(self._search.id)
            if progress.stop_requested:
                stop.request("stopped by automl stop")
            if stop.cause is not None:
                if not stopping:
                    self._store.set_state(self._lease, SearchState.STOPPING)
                    stopping = True
                if stop.overdue:
                    return Ending(SearchState.PAUSED, stop.cause)
                if progress.running == 0:
                    return self._end(budget) or Ending(SearchState.PAUSED, stop.cause)

    def turn(self, budget: int | None, *, stopping: bool = False) -> Ending | None:
        """Learns from complete batches and lets the pool do its work. Returns the ending once the search has ended."""
        if self._consume():
            self._pool.wake()
        self._check_objective()
        ending = self._end(budget)
        if ending is not None:
            # The last children may have failed since the last turn checked for failures.
            return (None if stopping else self._failing(ending)) or ending
        try:
            news = self._pool.tend()
        except PoolError as error:
            return Ending(SearchState.PAUSED, str(error), failed=True)
        if not news:
            self._pool.wait(WAIT_SECONDS)
            return None
        return None if stopping else self._failing()

    def notify_listeners(self) -> None:
        """Sends the listeners the new events of children, and the end of the turn."""
        self._child_events.look()
        self._listeners.turn_ended(TurnEnded(tuple(self._pool.notes), tuple(self.warnings)))

    def _check_objective(self) -> None:
        """Warns if the first child that was trained to its end did not report the metric of early stopping."""
        if self._objective is None or self._early_stop == "none":
            return
        best = self._store.top(self._search.id, 1)
        if not best:
            return
        metric, self._objective = self._objective.metric, None
        reported = {name: None for point in self._store.measurements(best[0].id) for name in point.metrics}
        if metric not in reported:
            self.warnings.append(
                f"--early-stop {self._early_stop} uses {metric}, which is not reported after each epoch, so no child "
                f"can be stopped: the epochs of child {best[0].number} reported "
                f"{' and '.join(reported) or 'nothing'}."
            )

    def _in_populations(self, children: list[NewChild], first: int) -> list[NewChild]:
        """Assigns populations to the children of a batch that begins with number `first`; none for a size of 1."""
        size = self._population
        if size == 1:
            return children
        return [
            dataclasses.replace(child, population=child.number - (child.number - first) % size) for child in children
        ]

    def _consume(self) -> bool:
        """Learns from every complete batch in order. Returns whether new children were proposed."""
        proposed = False
        if self._step is None:
            proposed = self._commit(None, [], {}, {})
        while self._step is not None:
            if not self._store.is_complete(self._search.id, self._step.number):
                break
            children = self._store.children(self._search.id, batch=self._step.number)
            if not children:
                break
            rewards = {child.number: self._reward(child, children) for child in children}
            began = time.perf_counter()
            stats = self._controller.tell(results_of(children, rewards))
            seconds = time.perf_counter() - began
            for child in children:
                del self._pending[child.number]
            proposed |= self._commit(self._step.number, children, rewards, stats, seconds)
        return proposed

    def _commit(
        self,
        batch: int | None,
        children: list[Child],
        rewards: dict[int, float | None],
        stats: dict[str, object],
        seconds: float = 0.0,
    ) -> bool:
        """Writes the controller's state and the proposals drawn under it. Returns whether there are proposals.

        The first step proposes all K batches.

        Args:
            seconds: that the controller took to learn from the batch.
        """
        number = 0 if batch is None else batch + 1
        first = 0 if batch is None else batch + self._search.replicas
        last = number + self._search.replicas
        size = self._search.batch_size
        proposals = []
        answered: dict[int, int | str] = {}
        took: dict[int, float] = {}
        if self._step is None or self._step.stats["proposed"]:
            requests = self._store.requests(self._search.id)
            for following in range(first, last):
                numbers = range(following * size, (following + 1) * size)
                self._proposer.pending = tuple(self._pending.values())
                began = time.perf_counter()
                of_users = self._proposer.answer(requests, numbers, batch=following, policy_step=number)
                requests = requests[len(of_users) :]
                answered |= {request: answer for request, answer, _ in of_users}
                made = [child for _, _, child in of_users if child is not None]
                drawn = self._proposer.propose(numbers, batch=following, policy_step=number, made=made)
                took[following] = time.perf_counter() - began
                self._pending |= {child.number: PendingChild(child.number, child.tokens) for child in drawn}
                proposals += self._in_populations(drawn, numbers.start)
                if len(drawn) < size:
                    break
        full = len(proposals) == size * (last - first)
        state = self._controller.state()
        blob = None if state is None else pack_state(state)
        step = Step(
            number=number,
            consumed_batch=batch,
            # Once `proposed` is false, nothing is proposed any more: an exhausted space stays exhausted.
            stats={**stats, "proposed": full},
            state_hash=state_hash({}, None) if state is None else state_hash(state.arrays, state.values),
            blob=blob,
            blob_sha256=None if blob is None else blobs.sha256(blob),
        )
        refused = dict(self._proposer.refused)
        decisions = self._proposer.catalogue.taken()
        self._store.commit_step(self._lease, step, rewards, proposals, refused, answered, decisions)
        self._step = step
        if batch is not None:
            self._child_events.look()  # listeners receive the ends of its children first
            self._listeners.step_learned(StepLearned(number, batch, rewards, stats, seconds))
        for proposed_batch, of_batch in itertools.groupby(proposals, key=lambda child: child.batch):
            self._listeners.batch_proposed(BatchProposed(proposed_batch, tuple(of_batch), took[proposed_batch]))
        return bool(proposals)

    def _unconsumed(self) -> list[Child]:
        """The proposed children from which the controller has not learned yet."""
        first = 0 if self._step is None else self._step.number * self._search.batch_size
        return self._store.children(self._search.id, first=first)

    def _reward(self, child: Child, batch: list[Child]) -> float | None:
        """The reward that the controller receives: the floor for a failed child, None for a lost one."""
        if child.state == State.TRAINED:
            return child.reward
        if child.state == State.LOST:
            return None
        if self._floor is not None:
            return self._floor
        lowest = self._store.lowest_reward(self._search.id, before_batch=child.batch)
        if lowest is None:
            lowest = min((other.reward for other in batch if other.reward is not None), default=0.0)
        return lowest

    def _end(self, budget: int | None) -> Ending | None:
        """How the search has ended, or None. At the end, the controller has learned from every complete batch."""
        progress = self._store.progress(self._search.id)
        trained = progress.trained
        if progress.running:
            return None
        assert self._step is not None
        if budget is not None and trained >= budget:
            ending = Ending(SearchState.FINISHED)
        elif progress.ready == 0 and not self._step.stats["proposed"]:
            wanted = "" if budget is None else f"/{budget}"
            over = [reason for reason in self._proposer.refused if reason.startswith("max_")]
            within = f" within {' and '.join('--' + reason.replace('_', '-') for reason in over)}" if over else ""
            ending = Ending(SearchState.EXHAUSTED, f"exhausted {trained}{wanted}: the space has no more{within}")
        else:
            return None
        self._consume()  # the last children may have ended since this turn learned, and no other turn follows
        return ending

    def _window(self) -> int:
        """The lowest number of a child that may be part of a new row of failures."""
        consumed = 0 if self._step is None else self._step.number * self._search.batch_size
        return max(0, consumed - 2 * FAILURES_IN_A_ROW)

    def _failing(self, ending: Ending | None = None) -> Ending | None:
        """A pause because of repeated failures, or None.

        Args:
            ending: how the search is about to end; a search that reached its budget is not paused.
        """
        if self._keep_going or (ending is not None and ending.state == SearchState.FINISHED):
            return None
        cause = self._failures.cause(first=self._window())
        return None if cause is None else Ending(SearchState.PAUSED, cause, failed=True)
