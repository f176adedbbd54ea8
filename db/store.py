"""The only interface to the database. Every method is one transaction; callers get frozen records, never rows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, exc, func, insert, select, update

from automl.db import blobs, own_files, queries
from automl.db.owner import Owner
from automl.db.reader import Reader, claim_of, record
from automl.db.records import (
    ATTEMPTS,
    MACHINE_FAULTS,
    Claim,
    Delivery,
    Donor,
    Fault,
    Json,
    Lease,
    LeaseHeldError,
    NameTakenError,
    NewChild,
    Request,
    Search,
    SearchState,
    StaleLeaseError,
    State,
    Step,
    StoreError,
    Training,
)
from automl.db.schema import (
    ArtefactRow,
    AttemptRow,
    ChildRow,
    DecisionRow,
    DonorRow,
    RequestRow,
    SearchRow,
    SegmentRow,
    StepRow,
    TrainingRow,
)

LEASE_SECONDS = 30.0  # a coordinator's lease
CLAIM_SECONDS = 150.0  # a worker's claim: longer than a transaction waits for another program's lock
MOST_COMPARED = 64  # ready children among which a claim chooses
UNCLEAN_TAKEOVERS = 5  # in a row, without a delivery between them, until a child that was running is charged
KEPT_STEPS = 2  # the latest ones, which keep their blobs
KEPT_EVERY = 100  # of the earlier ones, those with a multiple of this number keep theirs
LARGEST_BLOB = 64 * 2**20  # bytes; larger weights go to a file


class Store(Reader):
    """Searches, children and controller steps of one database.

    Only the coordinator that holds a search's lease writes the search, its steps and its proposals; every such write
    carries the lease's epoch. Workers claim children and deliver their results; every such write carries the claim's
    fence. A write under a lost lease raises `StaleLeaseError`; a write under a lost claim returns False. Neither
    changes anything. An expired lease or claim remains valid until another process takes it.

    The argument `gone` of some methods tells whether the process of a lease has ended.
    """

    # Searches

    def create_search(
        self,
        name: str,
        *,
        space: str,
        task: str,
        controller: str,
        seed: int,
        replicas: int,
        batch_size: int,
        threads: int,
        settings: Mapping[str, Any],
        budget: int | None,
        donors: Sequence[Donor] = (),
    ) -> Search:
        """Writes a new search, with what it receives from earlier ones. Raises NameTakenError."""
        values = {
            "name": name,
            "state": SearchState.PAUSED,
            "space": space,
            "task": task,
            "controller": controller,
            "seed": seed,
            "replicas": replicas,
            "batch_size": batch_size,
            "threads": threads,
            "settings": dict(settings),
            "budget": budget,
            "refused": {},
        }
        with self._write() as connection:
            if self._find(connection, name) is not None:
                raise self.name_taken(name)
            try:
                connection.execute(insert(SearchRow).values(created=self._now(connection), **values))
            except exc.IntegrityError:  # on PostgreSQL another process may create it between the check and the insert
                raise self.name_taken(name) from None
            search = self._search(connection, name)
            rows = [{"search_id": search.id, "number": number} | _values(donor) for number, donor in enumerate(donors)]
            if rows:
                connection.execute(insert(DonorRow), rows)
            return search

    def name_taken(self, name: str) -> NameTakenError:
        return NameTakenError(
            f"A search called {name!r} is already in {self}. Go on with it: automl resume {name} {self.option}; "
            "or choose another name."
        )

    def delete(self, name: str, *, gone: Callable[[Owner], bool] = Owner.is_gone) -> None:
        """Deletes a search with all its children, steps and weights. Raises LeaseHeldError while it runs."""
        with self._write() as connection:
            search = self._search(connection, name)
            self._refuse_if_held(connection, search, gone)
            children = select(ChildRow.id).where(ChildRow.search_id == search.id)
            files = self._files(connection, ArtefactRow.child_id.in_(children))
            connection.execute(delete(SearchRow).where(SearchRow.id == search.id))
        self._remove(files)

    # Requests of other processes

    def request_stop(self, name: str, *, gone: Callable[[Owner], bool] = Owner.is_gone) -> Search:
        """Asks the coordinator of a search to stop; changes nothing if none runs it. Returns the search before that."""
        with self._write() as connection:
            search = self._search(connection, name)
            if self._is_held(connection, search, gone):
                now = self._now(connection)
                connection.execute(update(SearchRow).where(SearchRow.id == search.id).values(stop_requested=now))
            return search

    def is_held(self, name: str, *, gone: Callable[[Owner], bool] = Owner.is_gone) -> bool:
        """Whether a living coordinator runs the search."""
        with self._read() as connection:
            return self._is_held(connection, self._search(connection, name), gone)

    def request_child(self, name: str, tokens: Sequence[int], *, spec: Json = None) -> Request:
        """Queues a user's own child. The coordinator proposes it with its next batch, if its tokens then still decode
        to `spec`."""
        with self._write() as connection:
            search = self._search(connection, name)
            values = {"search_id": search.id, "tokens": list(tokens), "spec": spec, "made": self._now(connection)}
            row = connection.execute(insert(RequestRow).values(**values).returning(RequestRow)).one()
            return record(Request, row)

    def retry(
        self,
        name: str,
        *,
        faults: Sequence[Fault] = (),
        number: int | None = None,
        lease: Lease | None = None,
        gone: Callable[[Owner], bool] = Owner.is_gone,
    ) -> list[int]:
        """Makes failed and lost children ready again, with all their attempts left; returns their numbers.

        Their attempts stay in the history and no longer count. If the controller has learned from their batch already,
        it does not learn from the new reward; only the child's record changes.

        Args:
            faults: only children that failed with one of these.
            number: only this child.
            lease: that of the calling coordinator; without it, the search must not run.

        Raises:
            LeaseHeldError: a coordinator runs the search.
            StaleLeaseError: another process has taken the lease.
        """
        with self._write() as connection:
            search = self._search(connection, name)
            if lease is None:
                self._refuse_if_held(connection, search, gone)
            else:
                self._fence(connection, lease)
            chosen = select(ChildRow.id, ChildRow.number).where(
                ChildRow.search_id == search.id, ChildRow.state.in_((State.FAILED, State.LOST))
            )
            if faults:
                chosen = chosen.where(ChildRow.fault.in_(faults))
            if number is not None:
                chosen = chosen.where(ChildRow.number == number)
            children = connection.execute(chosen.order_by(ChildRow.number).with_for_update()).all()
            again = {"state": State.READY, "worker": None, "lease_until": None, "attempts": 0, "interruptions": 0}
            empty = dict.fromkeys(("fault", "message", "reward", "metrics", "finished", "seconds", "phases"))
            for child in children:
                connection.execute(queries.CHANGE_CHILD, {"of_child": child.id} | again | empty)
                connection.execute(update(AttemptRow).where(AttemptRow.child_id == child.id).values(charged=False))
            if children and search.state == SearchState.EXHAUSTED:
                connection.execute(
                    update(SearchRow).where(SearchRow.id == search.id).values(state=SearchState.PAUSED, cause=None)
                )
            return [child.number for child in children]

    def keep_training(self, training: Training, weights: bytes) -> None:
        """Writes a training after the search, with its weights. Replaces an earlier one with this recipe and seed.

        Raises:
            ValueError: its reward is not finite.
        """
        if not math.isfinite(training.reward):
            raise ValueError(f"A training's reward must be finite, got {training.reward}.")
        key = (
            TrainingRow.child_id == training.child_id,
            TrainingRow.recipe_hash == training.recipe_hash,
            TrainingRow.seed == training.seed,
        )
        kind = training_kind(training.recipe_hash, training.seed)
        with self._write() as connection:
            connection.execute(delete(TrainingRow).where(*key))
            values = _values(training) | {"finished": self._now(connection)}
            connection.execute(insert(TrainingRow).values(**values))
            before = (ArtefactRow.child_id == training.child_id, ArtefactRow.kind == kind)
            replaced = self._files(connection, *before)
            connection.execute(delete(ArtefactRow).where(*before))
            self._insert_weights(connection, training.child_id, kind, epoch=0, weights=weights)
            kept = self._files(connection, *before)
        self._remove(replaced - kept)

    # The coordinator

    def take_lease(self, name: str, owner: Owner, *, gone: Callable[[Owner], bool] = Owner.is_gone) -> Lease:
        """Makes `owner` the search's coordinator and makes the children that the last one left running ready again.

        A take-over is unclean if the last coordinator did not `release` the search. A child that was running at five
        unclean take-overs in a row, with no child delivered between them, is charged with one crash, since it may be
        what kills the machine.

        Raises:
            LeaseHeldError: another coordinator holds a lease that has not expired, and is not known to be gone.
        """
        with self._write() as connection:
            now = self._now(connection)
            search = self._search(connection, name)
            self._refuse_if_held(connection, search, gone)
            unclean = search.unclean + 1 if search.owner is not None else search.unclean
            changed = connection.execute(
                update(SearchRow)
                .where(SearchRow.id == search.id, SearchRow.epoch == search.epoch)
                .values(
                    epoch=search.epoch + 1,
                    owner=owner.to_json(),
                    lease_until=now + LEASE_SECONDS,
                    unclean=unclean,
                    state=SearchState.RUNNING,
                    cause=None,
                    stop_requested=None,
                )
            ).rowcount
            if changed != 1:
                raise LeaseHeldError(f"Another process took the search {name!r} a moment ago; nothing was changed.")
            running = (ChildRow.search_id == search.id, ChildRow.state == State.RUNNING)
            rows = connection.execute(select(ChildRow).where(*running).order_by(ChildRow.number).with_for_update())
            for child in rows.all():
                interruptions = child.interruptions + 1 if unclean > 1 else 1
                if interruptions >= UNCLEAN_TAKEOVERS:
                    message = f"it was running {interruptions} times in a row when its coordinator died"
                    self._end_attempt(connection, now, child, Fault.CRASHED, charged=True, message=message)
                    interruptions = 0  # these are charged once
                else:
                    # After repeated deaths, one of the children that were trained together may be the cause.
                    self._end_attempt(connection, now, child, Fault.INTERRUPTED, charged=False, isolated=unclean > 1)
                connection.execute(update(ChildRow).where(ChildRow.id == child.id).values(interruptions=interruptions))
            return Lease(search.id, search.epoch + 1, search.state, search.cause)

    def renew_lease(self, lease: Lease) -> None:
        with self._write() as connection:
            self._fence(connection, lease, lease_until=self._now(connection) + LEASE_SECONDS)

    def release(self, lease: Lease, state: SearchState, cause: str | None) -> None:
        """Ends a coordinator's work cleanly: running children become `ready` again, and none is charged."""
        with self._write() as connection:
            self._fence(connection, lease, owner=None, lease_until=None, state=state, cause=cause, unclean=0)
            now = self._now(connection)
            running = select(ChildRow).where(ChildRow.search_id == lease.search_id, ChildRow.state == State.RUNNING)
            for child in connection.execute(running.with_for_update()).all():
                self._end_attempt(connection, now, child, Fault.INTERRUPTED, charged=False)

    def set_state(self, lease: Lease, state: SearchState) -> None:
        with self._write() as connection:
            self._fence(connection, lease, state=state)

    def set_budget(self, lease: Lease, budget: int | None) -> None:
        """Sets how many children may be trained in all; None for no limit."""
        with self._write() as connection:
            self._fence(connection, lease, budget=budget)

    def change_settings(
        self,
        lease: Lease,
        settings: Mapping[str, Any],
        *,
        decisions: Mapping[int, Mapping[str, Any]] | None = None,
        of_children: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """Writes the settings and the decisions that the tokens of children answer.

        Args:
            decisions: new decisions of the search, by number.
            of_children: the numbers of a child's decisions, by the child's number.
        """
        with self._write() as connection:
            named = {"task": settings["task"]["name"]} if "task" in settings else {}
            self._fence(connection, lease, settings=dict(settings), **named)
            self._add_decisions(connection, lease, decisions or {})
            if of_children:
                rows = [
                    {"of_search": lease.search_id, "of_number": number, "decisions": list(numbers)}
                    for number, numbers in of_children.items()
                ]
                connection.execute(queries.RECORD_DECISIONS, rows)

    def begin_segment(self, lease: Lease, segment: Mapping[str, Any]) -> int:
        """Records a start or resume; `segment` has the fields of `Segment` from `children` on. Returns its number."""
        with self._write() as connection:
            self._fence(connection, lease)
            last = connection.scalar(select(func.max(SegmentRow.number)).where(SegmentRow.search_id == lease.search_id))
            number = 0 if last is None else last + 1
            connection.execute(
                insert(SegmentRow).values(
                    search_id=lease.search_id, number=number, started=self._now(connection), **segment
                )
            )
            return number

    def end_segment(self, lease: Lease, number: int, ending: str) -> None:
        with self._write() as connection:
            self._fence(connection, lease)
            connection.execute(
                update(SegmentRow)
                .where(SegmentRow.search_id == lease.search_id, SegmentRow.number == number)
                .values(ended=self._now(connection), ending=ending)
            )

    def commit_step(
        self,
        lease: Lease,
        step: Step,
        consumed: Mapping[int, float | None],
        proposals: Sequence[NewChild],
        refused: Mapping[str, int],
        answered: Mapping[int, int | str] | None = None,
        decisions: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Writes a controller step in one transaction.

        Args:
            step: the controller's state after learning.
            consumed: the reward that the controller learned from, by the child's number; None for a lost child.
            proposals: the children proposed under this state.
            refused: the number of draws that were refused in the whole search, by reason.
            answered: the number of the child, or the reason of a refusal, by the id of a user's request.
            decisions: new decisions of the search, by number.
        """
        with self._write() as connection:
            self._fence(connection, lease, refused=dict(refused))
            self._add_decisions(connection, lease, decisions or {})
            connection.execute(insert(StepRow).values(search_id=lease.search_id, **_values(step)))
            if consumed:
                of_children = [
                    {"of_search": lease.search_id, "of_number": number, "consumed_by": step.number, "reward": reward}
                    for number, reward in consumed.items()
                ]
                connection.execute(queries.CONSUME, of_children)
            if proposals:
                rows = [
                    {"search_id": lease.search_id, "state": State.READY} | _values(proposal) for proposal in proposals
                ]
                connection.execute(insert(ChildRow), rows)
            for request, answer in (answered or {}).items():
                values = {"refusal" if isinstance(answer, str) else "child": answer}
                connection.execute(
                    update(RequestRow)
                    .where(RequestRow.id == request, RequestRow.search_id == lease.search_id)
                    .values(**values)
                )
            connection.execute(
                update(StepRow)
                .where(
                    StepRow.search_id == lease.search_id,
                    StepRow.number <= step.number - KEPT_STEPS,
                    StepRow.number > step.number - KEPT_STEPS - KEPT_EVERY,  # earlier ones were cleared before
                    StepRow.number % KEPT_EVERY != 0,
                    StepRow.blob.is_not(None),
                )
                .values(blob=None, blob_sha256=None)
            )

    # Workers

    def claim(
        self, search_id: int, worker: str, device: str, *, epoch: int | None = None, slot: int | None = None
    ) -> Claim | None:
        """Claims a ready child for `worker`. Returns None if no child may be claimed.

        The budget admits the ready children with the lowest numbers. Of these, `claim` takes a child of the earliest
        batch, since the controller waits for it, and in that batch the one with the most FLOPs, since a long child that
        starts last would delay the whole batch.

        A child whose claim has expired becomes ready again, and its lost attempt gets the fault `node_lost`. Nothing is
        claimed while trained and running children fill the budget, or once the search runs under another epoch than
        `epoch`.

        Args:
            worker: its name, unique among all workers of the search.
            device: what the worker trains on, for views.
            epoch: of the lease under which the worker was started; None for any.
            slot: the worker's place in its pool, for views.
        """
        with self._write() as connection:
            now = self._now(connection)
            chosen = self._choose(connection, search_id, now, epoch)
            return None if chosen is None else self._begin_attempt(connection, now, chosen[0], worker, device, slot)

    def claim_together(
        self, search_id: int, worker: str, device: str, *, epoch: int | None = None, slot: int | None = None
    ) -> list[Claim]:
        """Claims a child as `claim` does, with all ready children of its population that the budget admits, each under
        its own fence. An isolated child is claimed by itself."""
        with self._write() as connection:
            now = self._now(connection)
            chosen = self._choose(connection, search_id, now, epoch)
            if chosen is None:
                return []
            child, lowest = chosen
            members = [child]
            if child.population is not None and not child.isolated:
                with_it = (ChildRow.id.in_(lowest), ChildRow.population == child.population, ~ChildRow.isolated)
                members = list(connection.execute(select(ChildRow).where(*with_it).order_by(ChildRow.number)).all())
            return [self._begin_attempt(connection, now, member, worker, device, slot) for member in members]

    def claim_again(
        self, search_id: int, number: int, worker: str, device: str, *, epoch: int, slot: int | None = None
    ) -> Claim | None:
        """Claims a child that was stopped early, so that `worker` continues it. The controller does not learn from it
        again. Returns None if the controller has not learned from it yet, if it is not stopped any more, or if the
        search does not run under this epoch."""
        with self._write() as connection:
            now = self._now(connection)
            search = connection.execute(
                select(SearchRow.state, SearchRow.epoch).where(SearchRow.id == search_id).with_for_update()
            ).first()
            if search is None or search.state != SearchState.RUNNING or search.epoch != epoch:
                return None
            of_number = (ChildRow.search_id == search_id, ChildRow.number == number, ChildRow.state == State.TRAINED)
            child = connection.execute(select(ChildRow).where(*of_number)).first()
            if child is None or child.consumed_by is None or child.stopped_at is None:
                return None
            connection.execute(
                update(SearchRow).where(SearchRow.id == search_id).values(num_trained=SearchRow.num_trained - 1)
            )
            return self._begin_attempt(connection, now, child, worker, device, slot)

    def claimable(self, search_id: int) -> bool:
        """Whether a `claim` may succeed. Writes nothing."""
        with self._read() as connection:
            search = connection.execute(
                select(SearchRow.state, SearchRow.budget, SearchRow.num_trained).where(SearchRow.id == search_id)
            ).first()
            if search is None or search.state != SearchState.RUNNING:
                return False
            expired = select(ChildRow.id).where(
                ChildRow.search_id == search_id,
                ChildRow.state == State.RUNNING,
                ChildRow.lease_until < self._now(connection),
            )
            if connection.scalar(expired.limit(1)) is not None:
                return True
            ready = select(ChildRow.id).where(ChildRow.search_id == search_id, ChildRow.state == State.READY).limit(1)
            if connection.scalar(ready) is None:
                return False
            return self._budget_left(connection, search_id, search.budget, search.num_trained) > 0

    def renew_claims(self, search_id: int, workers: Sequence[str]) -> None:
        """Renews all claims of living workers, since a child may keep its worker from renewing its claim."""
        with self._write() as connection:
            connection.execute(
                update(ChildRow)
                .where(ChildRow.search_id == search_id, ChildRow.state == State.RUNNING, ChildRow.worker.in_(workers))
                .values(lease_until=self._now(connection) + CLAIM_SECONDS)
            )

    def renew(self, claim: Claim, progress: int) -> bool:
        """Renews a claim and records the number of steps so far. Returns False if the claim is lost."""
        with self._write() as connection:
            values = {"lease_until": self._now(connection) + CLAIM_SECONDS, "progress": progress}
            return bool(connection.execute(queries.CHANGE_CLAIMED_CHILD, _claim_key(claim) | values).rowcount == 1)

    def measure(self, claim: Claim, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Writes the metrics of an epoch and renews the claim; the same epoch again replaces them. Returns False if the
        claim is lost."""
        with self._write() as connection:
            now = self._now(connection)
            until = {"lease_until": now + CLAIM_SECONDS}
            if connection.execute(queries.ADVANCE_CLAIMED_CHILD, _claim_key(claim) | until).rowcount != 1:
                return False
            connection.execute(queries.DROP_MEASUREMENT, _claim_key(claim) | {"of_epoch": epoch})
            key = {"child_id": claim.child_id, "fence": claim.fence, "epoch": epoch}
            connection.execute(queries.ADD_MEASUREMENT, key | {"metrics": dict(metrics), "at": now})
            return True

    def deliver(self, claim: Claim, delivery: Delivery, *, keep: int = 0) -> bool:
        """Ends an attempt with a reward or a fault. Returns False if the claim is lost or was delivered before.

        The same transaction keeps the weights of the best `keep` children of the search and deletes the others.

        Raises:
            ValueError: the delivery has neither a fault nor a finite reward.
        """
        if delivery.fault is None and not (delivery.reward is not None and math.isfinite(delivery.reward)):
            raise ValueError(f"A trained child's reward must be finite, got {delivery.reward}; deliver it as diverged.")
        with self._write() as connection:
            # Locks the search's row before the child's, as `claim` and `take_lease` do, to avoid a deadlock.
            connection.execute(queries.LOCKED_SEARCH, {"of_search": claim.search_id})
            now = self._now(connection)
            child = self._claimed(connection, claim)
            if child is None:
                return False
            if delivery.fault is not None:
                self._end_attempt(
                    connection, now, child, delivery.fault, charged=True, message=delivery.message, log=delivery.log
                )
                return True
            values = {
                "state": State.TRAINED,
                "reward": delivery.reward,
                "metrics": dict(delivery.metrics),
                "stopped_at": delivery.stopped_at,
                "ending": delivery.ending,
                "screened": delivery.screened,
                "fault": None,
                "message": None,
                "lease_until": None,
                "finished": now,
                "seconds": delivery.seconds,
                "phases": dict(delivery.phases),
                "attempts": child.attempts + 1,
                "interruptions": 0,
            }
            connection.execute(queries.CHANGE_CHILD, {"of_child": child.id} | values)
            self._close_attempt(connection, now, child, fault=None, charged=False, log=delivery.log)
            connection.execute(queries.COUNT_TRAINED, {"of_search": claim.search_id})
            dropped = self._keep_weights(connection, claim, delivery, keep)
        self._remove(dropped)
        return True

    def fail_attempt(
        self,
        claim: Claim,
        fault: Fault,
        *,
        message: str | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        log: str | None = None,
    ) -> bool:
        """Ends the attempt of a worker that died, and charges it. Returns False if the claim is lost."""
        with self._write() as connection:
            child = self._claimed(connection, claim)
            if child is None:
                return False
            self._end_attempt(
                connection,
                self._now(connection),
                child,
                fault,
                charged=True,
                message=message,
                exit_code=exit_code,
                signal=signal,
                log=log,
            )
            return True

    def release_population(self, claims: Sequence[Claim], fault: Fault, **ending: Any) -> None:
        """Ends the attempts of a worker that died while it trained several children. None is charged, since the
        cause is unknown. From now on each of the children is trained by itself.

        Args:
            ending: message, exit_code, signal and log, as for `fail_attempt`.
        """
        with self._write() as connection:
            now = self._now(connection)
            for claim in claims:
                child = self._claimed(connection, claim)
                if child is not None:
                    self._end_attempt(connection, now, child, fault, charged=False, isolated=True, **ending)

    # Within a transaction

    def _choose(
        self, connection: Connection, search_id: int, now: float, epoch: int | None
    ) -> tuple[Any, list[int]] | None:
        """Chooses the child to be claimed next.

        Returns:
            Its row, and the ids of all ready children that the budget admits; None if no child may be claimed.
        """
        search = connection.execute(queries.LOCKED_SEARCH, {"of_search": search_id}).first()
        if search is None or search.state != SearchState.RUNNING or epoch not in (None, search.epoch):
            return None
        self._end_expired_claims(connection, search_id, now)
        admitted = self._budget_left(connection, search_id, search.budget, search.num_trained)
        most = max(0, min(admitted, MOST_COMPARED))
        lowest = connection.execute(queries.LOWEST_READY, {"of_search": search_id, "most": most}).all()
        if not lowest:
            return None
        chosen = min(lowest, key=lambda child: (child.batch, -(child.flops or 0), child.number))
        child = connection.execute(queries.CHILD, {"of_child": chosen.id}).one()
        return child, [other.id for other in lowest]

    def _is_held(self, connection: Connection, search: Search, gone: Callable[[Owner], bool]) -> bool:
        if search.owner is None:
            return False
        expired = search.lease_until is None or search.lease_until < self._now(connection)
        return not (expired or gone(Owner.from_json(search.owner)))

    def _refuse_if_held(self, connection: Connection, search: Search, gone: Callable[[Owner], bool]) -> None:
        if self._is_held(connection, search, gone):
            holder = Owner.from_json(search.owner or {})
            raise LeaseHeldError(
                f"The search {search.name!r} is running in {holder}; stop it there with Ctrl-C or with: automl stop "
                f"{search.name} {self.option}"
            )

    def _fence(self, connection: Connection, lease: Lease, **values: Any) -> None:
        """Writes values to the search's row, or only checks the lease if there are none. Raises StaleLeaseError."""
        changed = connection.execute(
            update(SearchRow)
            .where(SearchRow.id == lease.search_id, SearchRow.epoch == lease.epoch)
            .values(**(values or {"epoch": lease.epoch}))
        ).rowcount
        if changed != 1:
            raise StaleLeaseError("Another process has taken this search over (or deleted it); nothing was written.")

    def _add_decisions(self, connection: Connection, lease: Lease, decisions: Mapping[int, Mapping[str, Any]]) -> None:
        if decisions:
            rows = [
                {"search_id": lease.search_id, "number": number, "decision": dict(decision)}
                for number, decision in decisions.items()
            ]
            connection.execute(insert(DecisionRow), rows)

    def _claimed(self, connection: Connection, claim: Claim) -> Any:
        """The row of the claimed child, or None if the claim is lost."""
        return connection.execute(queries.CLAIMED_CHILD, _claim_key(claim)).first()

    def _begin_attempt(
        self, connection: Connection, now: float, child: Any, worker: str, device: str, slot: int | None
    ) -> Claim:
        fence = child.fence + 1
        values = {
            "state": State.RUNNING,
            "fence": fence,
            "worker": worker,
            "lease_until": now + CLAIM_SECONDS,
            "progress": 0,
            "started": now,
        }
        connection.execute(queries.CHANGE_CHILD, {"of_child": child.id} | values)
        attempt = {"child_id": child.id, "fence": fence, "worker": worker, "slot": slot}
        attempt |= {"device": device, "started": now}
        connection.execute(queries.BEGIN_ATTEMPT, attempt)
        return claim_of(child, fence, worker)

    def _budget_left(self, connection: Connection, search_id: int, budget: int | None, num_trained: int) -> int:
        """How many children the budget admits beside the running ones, or MOST_COMPARED without a budget."""
        if budget is None:
            return MOST_COMPARED
        return budget - num_trained - (connection.scalar(queries.RUNNING, {"of_search": search_id}) or 0)

    def _end_expired_claims(self, connection: Connection, search_id: int, now: float) -> None:
        children = connection.execute(queries.EXPIRED, {"of_search": search_id, "at": now}).all()
        of_worker = Counter(child.worker for child in children)
        for child in children:
            together = of_worker[child.worker] > 1
            self._end_attempt(
                connection,
                now,
                child,
                Fault.NODE_LOST,
                charged=not together,
                isolated=together,
                message="its claim expired",
            )

    def _end_attempt(
        self,
        connection: Connection,
        now: float,
        child: Any,
        fault: Fault,
        *,
        charged: bool,
        isolated: bool = False,
        message: str | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        log: str | None = None,
    ) -> None:
        """Ends an attempt. The child becomes ready again, or final if this fault has used up its charged attempts."""
        charged = charged and fault != Fault.INTERRUPTED
        self._close_attempt(
            connection, now, child, fault=fault, charged=charged, exit_code=exit_code, signal=signal, log=log
        )
        values: dict[str, Any] = {"state": State.READY, "lease_until": None, "fence": child.fence + 1, "worker": None}
        if isolated:
            values["isolated"] = True
        if charged:
            values["attempts"] = child.attempts + 1
            num_charged = connection.scalar(
                select(func.count())
                .select_from(AttemptRow)
                .where(AttemptRow.child_id == child.id, AttemptRow.fault == fault, AttemptRow.charged)
            )
            if (num_charged or 0) >= ATTEMPTS[fault]:
                final = State.LOST if fault in MACHINE_FAULTS else State.FAILED
                # A final child keeps its fence, so that the last attempt's measurements are its own.
                seconds = max(0.0, now - child.started)  # the clock may have been set back
                values |= {"state": final, "finished": now, "seconds": seconds, "fence": child.fence}
                values |= {"fault": fault, "message": message, "worker": child.worker}
        connection.execute(update(ChildRow).where(ChildRow.id == child.id).values(**values))

    def _close_attempt(self, connection: Connection, now: float, child: Any, **values: Any) -> None:
        of_attempt = {"of_child": child.id, "of_fence": child.fence}
        connection.execute(queries.CHANGE_ATTEMPT, of_attempt | {"ended": now} | values)

    def _keep_weights(self, connection: Connection, claim: Claim, delivery: Delivery, keep: int) -> set[Path]:
        """Stores the weights of a delivery among the best `keep`, and deletes others. Returns files to be removed."""
        if delivery.weights is None or keep < 1:
            return set()
        kept = (
            select(ChildRow.id)
            .where(ChildRow.search_id == claim.search_id, ChildRow.state == State.TRAINED)
            .order_by(ChildRow.reward.desc(), ChildRow.number)
            .limit(keep)
        )
        best = set(connection.scalars(kept))
        if claim.child_id in best:
            self._insert_weights(
                connection, claim.child_id, "search", epoch=delivery.weights_epoch, weights=delivery.weights
            )
        # Reads only the few children with weights; a join might read all children of the search.
        is_of_search = (ChildRow.id == ArtefactRow.child_id) & (ChildRow.search_id == claim.search_id)
        of_search = select(ArtefactRow.child_id).where(
            ArtefactRow.kind == "search", select(ChildRow.id).where(is_of_search).exists()
        )
        displaced = set(connection.scalars(of_search)) - best
        if not displaced:
            return set()
        of_displaced = (ArtefactRow.child_id.in_(displaced), ArtefactRow.kind == "search")
        files = self._files(connection, *of_displaced)
        connection.execute(delete(ArtefactRow).where(*of_displaced))
        return files

    def _files(self, connection: Connection, *of_rows: Any) -> set[Path]:
        """The files of those weights among these rows that are too large for the database."""
        key = (ArtefactRow.child_id, ArtefactRow.kind, ArtefactRow.sha256)
        rows = connection.execute(select(*key).where(ArtefactRow.blob.is_(None), *of_rows)).all()
        return {path for row in rows if (path := self._artefact_path(*row)) is not None}

    @staticmethod
    def _remove(files: Iterable[Path]) -> None:
        for path in files:
            with contextlib.suppress(OSError):  # a file that remains only takes space
                own_files.remove(path, own=1)

    def _insert_weights(self, connection: Connection, child_id: int, kind: str, *, epoch: int, weights: bytes) -> None:
        checksum = blobs.sha256(weights)
        large = len(weights) > LARGEST_BLOB
        if large:
            path = self._artefact_path(child_id, kind, checksum)
            assert path is not None, f"weights of a kind without a file: {kind}"
            self._write_file(path, weights)
        connection.execute(
            insert(ArtefactRow).values(
                child_id=child_id,
                kind=kind,
                epoch=epoch,
                sha256=checksum,
                size=len(weights),
                blob=None if large else weights,
            )
        )

    def _write_file(self, path: Path, content: bytes) -> None:
        try:
            own_files.write(path, content, own=1)
        except OSError as error:
            raise StoreError(f"Weights cannot be written to {self._artefacts_dir}: {error.strerror}.") from error


def _claim_key(claim: Claim) -> dict[str, Any]:
    """The parameters of a query about the claimed child."""
    return {"of_child": claim.child_id, "of_fence": claim.fence}


def training_kind(recipe_hash: str, seed: int) -> str:
    """The artefact kind of the weights of a training after the search."""
    return f"train/{recipe_hash}/{seed}"


def _values(record: Any) -> dict[str, Any]:
    """The fields of a record as column values; tuples become lists, as JSON has them."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
