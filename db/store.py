"""The one door to the database. Every method is one transaction; callers get frozen records, never rows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, delete, exc, func, insert, select, text, update

from db import blobs
from db.digest import digest
from db.engine import WRITE, check_store, first_line, open_engine, parse_address, shown
from db.owner import Owner
from db.records import (
    ATTEMPTS,
    FINAL,
    MACHINE_FAULTS,
    Artefact,
    Attempt,
    Child,
    Claim,
    Delivery,
    Fault,
    Lease,
    LeaseHeldError,
    Measurement,
    NameTakenError,
    NewChild,
    Search,
    SearchState,
    Segment,
    StaleLeaseError,
    State,
    Step,
    StoreError,
    UnknownSearchError,
)
from db.schema import REVISION, ArtefactRow, AttemptRow, ChildRow, MeasurementRow, SearchRow, SegmentRow, StepRow

LEASE_SECONDS = 30.0
UNCLEAN_TAKEOVERS = 5  # so many in a row with a child running, none delivered, and the child is charged for it
KEPT_STEPS = 2
KEPT_EVERY = 100
LARGEST_BLOB = 64 * 2**20  # bytes; larger weights go to a file

Record = TypeVar("Record")


class Store:
    """Searches, children and controller steps of one database.

    A coordinator takes a search's lease and then alone writes the search, its steps and its proposals; every such write
    carries the lease's epoch. Workers claim children and deliver them by themselves; every such write carries the
    claim's fence. A write under a lost lease raises `StaleLeaseError`; a write under a lost claim returns False.
    Neither changes anything. An expired lease or claim that nobody took is still its owner's.

    Args:
        address: a database URL or the path of a SQLite file.
        create: make or upgrade the schema; otherwise the store must be there.
        readonly: open for looking; a SQLite file is then not written at all.
        clock: seconds since 1970, in place of the database's own clock.
        artefacts_dir: where weights of more than 64 MB go; default `NAME.artefacts` beside a SQLite file.

    Raises:
        StoreError: there is no store at the address, or it is damaged, not ours, or newer than this program.
    """

    def __init__(
        self,
        address: str,
        *,
        create: bool = False,
        readonly: bool = False,
        clock: Callable[[], float] | None = None,
        artefacts_dir: Path | None = None,
    ) -> None:
        self.address = address
        self._clock = clock
        url = parse_address(address)
        self.file = Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None
        beside = Path("artefacts") if self.file is None else self.file.with_name(f"{self.file.name}.artefacts")
        self._artefacts_dir = artefacts_dir or beside
        # For commands that we show to people: quoted, and without a password.
        self.option = f"--store {shlex.quote(address if '://' not in address else shown(url))}"
        self._engine = open_engine(url, readonly=readonly)
        missing = self.file is not None and not (self.file.exists() and self.file.stat().st_size)
        if missing and not create:
            raise StoreError(f"There is no store at {self}. Start one with: automl search NAME {self.option}")
        try:
            if create:
                from db.migrate import create_or_upgrade  # alembic takes a third of a second to import

                create_or_upgrade(self._engine)
            else:
                self._check(thorough=False)
        except exc.DBAPIError as error:
            self.close()
            raise StoreError(f"The store {self} cannot be opened: {first_line(error)}") from error
        except BaseException:
            self.close()
            raise

    def _check(self, *, thorough: bool) -> None:
        revision = check_store(self._engine, thorough=thorough)
        if revision is None:
            raise StoreError(f"{self} holds no automl store yet. Start one with: automl search NAME {self.option}")
        if revision != REVISION:
            raise StoreError(
                f"{self} has schema {revision} and this program needs {REVISION}; "
                "any `automl search` or `automl resume` upgrades it (a backup is made first)."
            )

    def check(self) -> None:
        """Reads the whole store for damage. Raises StoreError."""
        self._check(thorough=True)

    def __str__(self) -> str:
        return shown(self._engine.url)

    def close(self) -> None:
        self._engine.dispose()

    def now(self) -> float:
        """Seconds since 1970 by the database's clock: leases are judged by one clock, whoever asks."""
        with self._read() as connection:
            return self._now(connection)

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
    ) -> Search:
        """Writes a new search. Raises NameTakenError."""
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
            except exc.IntegrityError:  # on PostgreSQL another process may create it between the look and the write
                raise self.name_taken(name) from None
            return self._search(connection, name)

    def name_taken(self, name: str) -> NameTakenError:
        return NameTakenError(
            f"A search called {name!r} is already in {self}. Go on with it: automl resume {name} {self.option}; "
            "or choose another name."
        )

    def searches(self) -> list[Search]:
        with self._read() as connection:
            return [_record(Search, row) for row in connection.execute(select(SearchRow).order_by(SearchRow.id))]

    def search(self, name: str) -> Search:
        """Raises UnknownSearchError, which names the nearest."""
        with self._read() as connection:
            return self._search(connection, name)

    def delete(self, name: str, *, gone: Callable[[Owner], bool] = Owner.is_gone) -> None:
        """Deletes a search with all that belongs to it. Raises LeaseHeldError while a coordinator runs it."""
        with self._write() as connection:
            search = self._search(connection, name)
            self._refuse_if_held(connection, search, gone)
            children = select(ChildRow.id).where(ChildRow.search_id == search.id)
            paths = connection.scalars(
                select(ArtefactRow.path).where(ArtefactRow.child_id.in_(children), ArtefactRow.path.is_not(None))
            ).all()
            connection.execute(delete(SearchRow).where(SearchRow.id == search.id))
        for path in paths:
            Path(path or "").unlink(missing_ok=True)

    # The coordinator

    def take_lease(self, name: str, owner: Owner, *, gone: Callable[[Owner], bool] = Owner.is_gone) -> Lease:
        """Makes `owner` the search's coordinator and readies the children that the last one left running.

        Taking over from a coordinator that did not `release` is unclean. A child that was running at five unclean
        take-overs in a row, with no child delivered between them, is charged once: it may be what kills the machine.

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
                )
            ).rowcount
            if changed != 1:
                raise LeaseHeldError(f"Another process took the search {name!r} a moment ago; nothing was changed.")
            running = (ChildRow.search_id == search.id, ChildRow.state == State.RUNNING)
            found = connection.execute(select(ChildRow).where(*running).order_by(ChildRow.number).with_for_update())
            for child in found.all():
                interruptions = child.interruptions + 1 if unclean > 1 else 1
                if interruptions >= UNCLEAN_TAKEOVERS:
                    message = f"it was running {interruptions} times in a row when its coordinator died"
                    self._end_attempt(connection, now, child, Fault.CRASHED, charged=True, message=message)
                    interruptions = 0  # charged once for these; the count begins again
                else:
                    self._end_attempt(connection, now, child, Fault.INTERRUPTED, charged=False)
                connection.execute(update(ChildRow).where(ChildRow.id == child.id).values(interruptions=interruptions))
            return Lease(search.id, search.epoch + 1)

    def renew_lease(self, lease: Lease) -> None:
        with self._write() as connection:
            self._fence(connection, lease, lease_until=self._now(connection) + LEASE_SECONDS)

    def release(self, lease: Lease, state: SearchState, cause: str | None) -> None:
        """Ends a coordinator's work cleanly: running children go back to `ready`, uncharged."""
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
        """How many children may be trained in all; None is without end."""
        with self._write() as connection:
            self._fence(connection, lease, budget=budget)

    def change_settings(self, lease: Lease, settings: Mapping[str, Any]) -> None:
        with self._write() as connection:
            self._fence(connection, lease, settings=dict(settings))

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
    ) -> None:
        """One controller step in one transaction.

        Args:
            step: the controller's state after learning.
            consumed: the reward that was learned from, by number of the consumed child (None for a lost one).
            proposals: the children proposed under this state.
            refused: how many draws were refused in all, by reason.
        """
        with self._write() as connection:
            self._fence(connection, lease, refused=dict(refused))
            connection.execute(insert(StepRow).values(search_id=lease.search_id, **_values(step)))
            for number, reward in consumed.items():
                connection.execute(
                    update(ChildRow)
                    .where(ChildRow.search_id == lease.search_id, ChildRow.number == number)
                    .values(consumed_by=step.number, reward=reward)
                )
            if proposals:
                rows = [
                    {"search_id": lease.search_id, "state": State.READY} | _values(proposal) for proposal in proposals
                ]
                connection.execute(insert(ChildRow), rows)
            connection.execute(
                update(StepRow)
                .where(
                    StepRow.search_id == lease.search_id,
                    StepRow.number <= step.number - KEPT_STEPS,
                    StepRow.number % KEPT_EVERY != 0,
                    StepRow.blob.is_not(None),
                )
                .values(blob=None, blob_sha256=None)
            )

    def last_step(self, search_id: int) -> Step | None:
        with self._read() as connection:
            query = select(StepRow).where(StepRow.search_id == search_id).order_by(StepRow.number.desc()).limit(1)
            row = connection.execute(query).first()
            return None if row is None else _record(Step, row)

    # Workers

    def claim(self, search_id: int, worker: str, device: str, *, epoch: int | None = None) -> Claim | None:
        """Gives the lowest ready child to `worker`, or None where none may be claimed.

        A child whose claim expired counts as ready; its lost attempt is charged to the machine. Nothing is claimed
        while trained and running children fill the budget, or once the search runs under another epoch than `epoch`.
        """
        with self._write() as connection:
            now = self._now(connection)
            search = connection.execute(
                select(SearchRow.state, SearchRow.epoch, SearchRow.budget, SearchRow.num_trained)
                .where(SearchRow.id == search_id)
                .with_for_update()
            ).first()
            if search is None or search.state != SearchState.RUNNING or epoch not in (None, search.epoch):
                return None
            self._expire(connection, search_id, now)
            if self._budget_is_full(connection, search_id, search.budget, search.num_trained):
                return None
            child = connection.execute(
                select(ChildRow)
                .where(ChildRow.search_id == search_id, ChildRow.state == State.READY)
                .order_by(ChildRow.number)
                .limit(1)
            ).first()
            if child is None:
                return None
            fence = child.fence + 1
            connection.execute(
                update(ChildRow)
                .where(ChildRow.id == child.id)
                .values(
                    state=State.RUNNING,
                    fence=fence,
                    worker=worker,
                    lease_until=now + LEASE_SECONDS,
                    progress=0,
                    started=now,
                )
            )
            connection.execute(
                insert(AttemptRow).values(child_id=child.id, fence=fence, worker=worker, device=device, started=now)
            )
            return Claim(child.id, search_id, child.number, fence, worker, tuple(child.tokens), child.seed)

    def claimable(self, search_id: int) -> bool:
        """Whether a `claim` is worth trying: a look that writes nothing."""
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
            return not self._budget_is_full(connection, search_id, search.budget, search.num_trained)

    def renew(self, claim: Claim, progress: int) -> bool:
        """Prolongs a claim and records the steps made so far. False where the claim is another's by now."""
        with self._write() as connection:
            until = self._now(connection) + LEASE_SECONDS
            return self._update_claimed(connection, claim, lease_until=until, progress=progress)

    def measure(self, claim: Claim, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Writes the metrics of an epoch, which proves progress; the same epoch again replaces them."""
        with self._write() as connection:
            now = self._now(connection)
            moved = {"lease_until": now + LEASE_SECONDS, "progress": ChildRow.progress + 1}
            if not self._update_claimed(connection, claim, **moved):
                return False
            key = {"child_id": claim.child_id, "fence": claim.fence, "epoch": epoch}
            connection.execute(
                delete(MeasurementRow).where(*(getattr(MeasurementRow, name) == value for name, value in key.items()))
            )
            connection.execute(insert(MeasurementRow).values(**key, metrics=dict(metrics), at=now))
            return True

    def deliver(self, claim: Claim, delivery: Delivery, *, keep: int = 0) -> bool:
        """Ends a child with its reward or its fault, once: a second or stale delivery returns False.

        Weights are kept in the same transaction for the best `keep` children; those they displace are dropped.

        Raises:
            ValueError: neither a fault nor a finite reward is delivered.
        """
        if delivery.fault is None and not (delivery.reward is not None and math.isfinite(delivery.reward)):
            raise ValueError(f"A trained child's reward must be finite, got {delivery.reward}; deliver it as diverged.")
        with self._write() as connection:
            # The search's row before the child's, as `claim` and `take_lease` lock them: no two wait for each other.
            connection.execute(select(SearchRow.id).where(SearchRow.id == claim.search_id).with_for_update())
            now = self._now(connection)
            child = self._claimed(connection, claim)
            if child is None:
                return False
            if delivery.fault is not None:
                self._end_attempt(
                    connection, now, child, delivery.fault, charged=True, message=delivery.message, log=delivery.log
                )
                return True
            connection.execute(
                update(ChildRow)
                .where(ChildRow.id == child.id)
                .values(
                    state=State.TRAINED,
                    reward=delivery.reward,
                    metrics=dict(delivery.metrics),
                    fault=None,
                    message=None,
                    lease_until=None,
                    finished=now,
                    seconds=delivery.seconds,
                    attempts=child.attempts + 1,
                    interruptions=0,
                )
            )
            self._close_attempt(connection, now, child, fault=None, charged=False, log=delivery.log)
            connection.execute(
                update(SearchRow)
                .where(SearchRow.id == claim.search_id)
                .values(num_trained=SearchRow.num_trained + 1, unclean=0)
            )
            dropped = self._keep_weights(connection, claim, delivery, keep)
        for path in dropped:
            Path(path).unlink(missing_ok=True)
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
        charged: bool = True,
    ) -> bool:
        """Ends the attempt of a worker that died or gave its child back. False where the claim is another's by now."""
        with self._write() as connection:
            child = self._claimed(connection, claim)
            if child is None:
                return False
            self._end_attempt(
                connection,
                self._now(connection),
                child,
                fault,
                charged=charged,
                message=message,
                exit_code=exit_code,
                signal=signal,
                log=log,
            )
            return True

    def claim_of(self, search_id: int, worker: str) -> Claim | None:
        """The child that this worker is running, for whoever has to clean up after it."""
        with self._read() as connection:
            row = connection.execute(
                select(ChildRow).where(
                    ChildRow.search_id == search_id, ChildRow.state == State.RUNNING, ChildRow.worker == worker
                )
            ).first()
            if row is None:
                return None
            return Claim(row.id, search_id, row.number, row.fence, worker, tuple(row.tokens), row.seed)

    # Looking

    def children(
        self,
        search_id: int,
        *,
        batch: int | None = None,
        number: int | None = None,
        states: Sequence[State] = (),
        first: int = 0,
    ) -> list[Child]:
        """Children in number order, of one batch, one number, some states, or from number `first` on."""
        query = select(ChildRow).where(ChildRow.search_id == search_id, ChildRow.number >= first)
        if batch is not None:
            query = query.where(ChildRow.batch == batch)
        if number is not None:
            query = query.where(ChildRow.number == number)
        if states:
            query = query.where(ChildRow.state.in_(states))
        return self._children(query.order_by(ChildRow.number))

    def top(self, search_id: int, count: int) -> list[Child]:
        """The best trained children, best first; of equals the older first."""
        query = select(ChildRow).where(ChildRow.search_id == search_id, ChildRow.state == State.TRAINED)
        return self._children(query.order_by(ChildRow.reward.desc(), ChildRow.number).limit(count))

    def hashes(self, search_id: int) -> set[str]:
        """Canonical hashes of all children."""
        with self._read() as connection:
            return set(connection.scalars(select(ChildRow.canonical_hash).where(ChildRow.search_id == search_id)))

    def progress(self, search_id: int) -> tuple[int, int, int]:
        """How many children are trained, ready and running: as quick after a million children as after ten."""
        of_search = select(func.count()).select_from(ChildRow).where(ChildRow.search_id == search_id)
        query = select(
            SearchRow.num_trained,
            of_search.where(ChildRow.state == State.READY).scalar_subquery(),
            of_search.where(ChildRow.state == State.RUNNING).scalar_subquery(),
        ).where(SearchRow.id == search_id)
        with self._read() as connection:
            trained, ready, running = connection.execute(query).one()
        return trained, ready, running

    def is_complete(self, search_id: int, batch: int) -> bool:
        """Whether no child of the batch is still to be trained."""
        query = select(ChildRow.id).where(
            ChildRow.search_id == search_id, ChildRow.batch == batch, ChildRow.state.not_in(FINAL)
        )
        with self._read() as connection:
            return connection.scalar(query.limit(1)) is None

    def failed(self, search_id: int, *, first: int) -> bool:
        """Whether any child from number `first` on has failed."""
        query = select(ChildRow.id).where(
            ChildRow.search_id == search_id, ChildRow.state == State.FAILED, ChildRow.number >= first
        )
        with self._read() as connection:
            return connection.scalar(query.limit(1)) is not None

    def counts(self, search_id: int) -> dict[str, int]:
        """Children by state, every state named."""
        query = select(ChildRow.state, func.count()).where(ChildRow.search_id == search_id).group_by(ChildRow.state)
        with self._read() as connection:
            found = {state: count for state, count in connection.execute(query)}
        return {state.value: found.get(state, 0) for state in State}

    def attempts(self, child_id: int) -> list[Attempt]:
        with self._read() as connection:
            query = select(AttemptRow).where(AttemptRow.child_id == child_id).order_by(AttemptRow.fence)
            return [_record(Attempt, row) for row in connection.execute(query)]

    def measurements(self, child_id: int) -> list[Measurement]:
        """The accepted measurements: those of the child's last fence."""
        with self._read() as connection:
            fence = select(ChildRow.fence).where(ChildRow.id == child_id).scalar_subquery()
            query = (
                select(MeasurementRow)
                .where(MeasurementRow.child_id == child_id, MeasurementRow.fence == fence)
                .order_by(MeasurementRow.epoch)
            )
            return [_record(Measurement, row) for row in connection.execute(query)]

    def segments(self, search_id: int) -> list[Segment]:
        with self._read() as connection:
            query = select(SegmentRow).where(SegmentRow.search_id == search_id).order_by(SegmentRow.number)
            return [_record(Segment, row) for row in connection.execute(query)]

    def steps(self, search_id: int) -> list[Step]:
        """Every step's figures and hash, without the blobs."""
        columns = [
            getattr(StepRow, field.name)
            for field in dataclasses.fields(Step)
            if field.name not in ("blob", "blob_sha256")
        ]
        with self._read() as connection:
            query = select(*columns).where(StepRow.search_id == search_id).order_by(StepRow.number)
            return [Step(**row._mapping, blob=None, blob_sha256=None) for row in connection.execute(query)]

    def rewards(self, search_id: int) -> list[tuple[int, float]]:
        """(number, reward) of trained children in number order."""
        query = (
            select(ChildRow.number, ChildRow.reward)
            .where(ChildRow.search_id == search_id, ChildRow.state == State.TRAINED)
            .order_by(ChildRow.number)
        )
        with self._read() as connection:
            return [(number, reward) for number, reward in connection.execute(query) if reward is not None]

    def lowest_reward(self, search_id: int, *, before_batch: int) -> float | None:
        """The lowest reward among consumed children of earlier batches."""
        query = select(func.min(ChildRow.reward)).where(
            ChildRow.search_id == search_id, ChildRow.batch < before_batch, ChildRow.consumed_by.is_not(None)
        )
        with self._read() as connection:
            return connection.scalar(query)

    def digest(self, search_id: int) -> str:
        """The hash that says two searches are the same (`db.digest`)."""
        return digest(self.children(search_id, states=FINAL), self.steps(search_id))

    def weights(self, child_id: int, kind: str = "search") -> dict[str, Any] | None:
        """The stored weights of a child by name, or None where none were kept. Raises StoreError where damaged."""
        with self._read() as connection:
            row = connection.execute(
                select(ArtefactRow).where(ArtefactRow.child_id == child_id, ArtefactRow.kind == kind)
            ).first()
        if row is None:
            return None
        artefact = _record(Artefact, row)
        try:
            blob = artefact.blob if artefact.path is None else Path(artefact.path).read_bytes()
        except OSError as error:
            raise StoreError(f"The weights file {artefact.path} cannot be read: {error.strerror}.") from error
        return blobs.unpack(blob or b"", artefact.sha256)

    # Within a transaction

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._transaction(**WRITE) as connection:
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._transaction() as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, **options: Any) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.execution_options(**options)
                with connection.begin():
                    yield connection
        except exc.OperationalError as error:
            raise StoreError(f"The store {self} did not answer: {first_line(error)}") from error
        except exc.DBAPIError as error:
            raise StoreError(f"The store {self} refused: {first_line(error)}") from error
        except exc.StatementError as error:  # a value that is no JSON; SQLAlchemy's own message shows all values
            raise ValueError(f"This cannot be stored: {error.orig}.") from error

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        if self._engine.dialect.name == "sqlite":
            query = "SELECT (julianday('now') - 2440587.5) * 86400.0"
        else:
            query = "SELECT extract(epoch FROM clock_timestamp())::double precision"
        return float(connection.scalar(text(query)))

    def _find(self, connection: Connection, name: str) -> Search | None:
        row = connection.execute(select(SearchRow).where(SearchRow.name == name)).first()
        return None if row is None else _record(Search, row)

    def _search(self, connection: Connection, name: str) -> Search:
        search = self._find(connection, name)
        if search is None:
            from difflib import SequenceMatcher

            names = connection.scalars(select(SearchRow.name)).all()
            names = sorted(names, key=lambda other: -SequenceMatcher(None, name, other).ratio())[:8]
            known = f"it has {', '.join(names)}" if names else "it has none yet"
            raise UnknownSearchError(f"There is no search called {name!r} in {self}; {known}.")
        return search

    def _refuse_if_held(self, connection: Connection, search: Search, gone: Callable[[Owner], bool]) -> None:
        if search.owner is None:
            return
        holder = Owner(**search.owner)
        expired = search.lease_until is None or search.lease_until < self._now(connection)
        if not (expired or gone(holder)):
            raise LeaseHeldError(
                f"The search {search.name!r} is running in {holder}; stop it there with Ctrl-C, or wait for it to end."
            )

    def _fence(self, connection: Connection, lease: Lease, **values: Any) -> None:
        """Writes to the search's row if the lease still holds; with no values, only checks."""
        changed = connection.execute(
            update(SearchRow)
            .where(SearchRow.id == lease.search_id, SearchRow.epoch == lease.epoch)
            .values(**(values or {"epoch": lease.epoch}))
        ).rowcount
        if changed != 1:
            raise StaleLeaseError("Another process has taken this search over (or deleted it); nothing was written.")

    def _claimed(self, connection: Connection, claim: Claim) -> Any:
        """The row of the claimed child, or None where the claim is another's by now."""
        return connection.execute(
            select(ChildRow)
            .where(ChildRow.id == claim.child_id, ChildRow.fence == claim.fence, ChildRow.state == State.RUNNING)
            .with_for_update()
        ).first()

    def _update_claimed(self, connection: Connection, claim: Claim, **values: Any) -> bool:
        changed = connection.execute(
            update(ChildRow)
            .where(ChildRow.id == claim.child_id, ChildRow.fence == claim.fence, ChildRow.state == State.RUNNING)
            .values(**values)
        ).rowcount
        return bool(changed == 1)

    def _budget_is_full(self, connection: Connection, search_id: int, budget: int | None, num_trained: int) -> bool:
        running = (ChildRow.search_id == search_id, ChildRow.state == State.RUNNING)
        count = select(func.count()).select_from(ChildRow).where(*running)
        return budget is not None and num_trained + (connection.scalar(count) or 0) >= budget

    def _expire(self, connection: Connection, search_id: int, now: float) -> None:
        expired = select(ChildRow).where(
            ChildRow.search_id == search_id, ChildRow.state == State.RUNNING, ChildRow.lease_until < now
        )
        for child in connection.execute(expired.with_for_update()).all():
            self._end_attempt(connection, now, child, Fault.NODE_LOST, charged=True, message="its lease ran out")

    def _end_attempt(
        self,
        connection: Connection,
        now: float,
        child: Any,
        fault: Fault,
        *,
        charged: bool,
        message: str | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
        log: str | None = None,
    ) -> None:
        """Makes the child ready again, or final once its charged attempts with this fault are used up."""
        charged = charged and fault != Fault.INTERRUPTED
        self._close_attempt(
            connection, now, child, fault=fault, charged=charged, exit_code=exit_code, signal=signal, log=log
        )
        values: dict[str, Any] = {"state": State.READY, "lease_until": None, "fence": child.fence + 1, "worker": None}
        if charged:
            values["attempts"] = child.attempts + 1
            same = connection.scalar(
                select(func.count())
                .select_from(AttemptRow)
                .where(AttemptRow.child_id == child.id, AttemptRow.fault == fault, AttemptRow.charged)
            )
            if (same or 0) >= ATTEMPTS[fault]:
                final = State.LOST if fault in MACHINE_FAULTS else State.FAILED
                # A final child keeps its fence: its measurements are the last attempt's.
                seconds = max(0.0, now - child.started)  # a clock may be set back
                values |= {"state": final, "finished": now, "seconds": seconds, "fence": child.fence}
                values |= {"fault": fault, "message": message, "worker": child.worker}
        connection.execute(update(ChildRow).where(ChildRow.id == child.id).values(**values))

    def _close_attempt(self, connection: Connection, now: float, child: Any, **values: Any) -> None:
        connection.execute(
            update(AttemptRow)
            .where(AttemptRow.child_id == child.id, AttemptRow.fence == child.fence)
            .values(ended=now, **values)
        )

    def _keep_weights(self, connection: Connection, claim: Claim, delivery: Delivery, keep: int) -> list[str]:
        """Stores a delivery's weights if it is among the best `keep`; returns files that are no longer needed."""
        if delivery.weights is None or keep < 1:
            return []
        kept = (
            select(ChildRow.id)
            .where(ChildRow.search_id == claim.search_id, ChildRow.state == State.TRAINED)
            .order_by(ChildRow.reward.desc(), ChildRow.number)
            .limit(keep)
        )
        best = set(connection.scalars(kept))
        if claim.child_id in best:
            checksum = blobs.sha256(delivery.weights)
            large = len(delivery.weights) > LARGEST_BLOB
            # Equal children of two searches have equal weights: each has its own file, so that each can be dropped.
            path = self._write_file(f"{claim.child_id}-{checksum}", delivery.weights) if large else None
            connection.execute(
                insert(ArtefactRow).values(
                    child_id=claim.child_id,
                    kind="search",
                    epoch=delivery.weights_epoch,
                    sha256=checksum,
                    size=len(delivery.weights),
                    blob=None if large else delivery.weights,
                    path=path,
                )
            )
        of_search = (
            select(ArtefactRow.child_id, ArtefactRow.path)
            .join(ChildRow, ChildRow.id == ArtefactRow.child_id)
            .where(ChildRow.search_id == claim.search_id, ArtefactRow.kind == "search")
        )
        displaced = {child: path for child, path in connection.execute(of_search) if child not in best}
        if displaced:
            connection.execute(
                delete(ArtefactRow).where(ArtefactRow.child_id.in_(displaced), ArtefactRow.kind == "search")
            )
        return [path for path in displaced.values() if path is not None]

    def _write_file(self, name: str, content: bytes) -> str:
        """Writes a file that is there whole or not at all."""
        path = self._artefacts_dir / f"{name}.npz"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._artefacts_dir.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(f"Weights cannot be written to {self._artefacts_dir}: {error.strerror}.") from error
        return str(path.absolute())

    def _children(self, query: Select[Any]) -> list[Child]:
        with self._read() as connection:
            return [_record(Child, row) for row in connection.execute(query)]


def _record(kind: type[Record], row: Any) -> Record:
    mapping = row._mapping
    return kind(**{field.name: mapping[field.name] for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def _values(record: Any) -> dict[str, Any]:
    """The fields of a record as column values; tuples become lists, as JSON has them."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
