"""The queries of a store, which change nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from sqlalchemy import Connection, Select, func, inspect, null, select

from automl.db import blobs, own_files, queries
from automl.db.database import Database
from automl.db.digest import DIGESTED, FLAGS, digest
from automl.db.records import (
    FINAL,
    Artefact,
    Attempt,
    Child,
    Claim,
    Curve,
    Donor,
    EndedAttempt,
    EndingCount,
    FailureCount,
    Measurement,
    Progress,
    RankedChild,
    Request,
    RunningAttempt,
    Search,
    Segment,
    State,
    Step,
    StoreError,
    Training,
    UnknownSearchError,
)
from automl.db.schema import (
    ArtefactRow,
    AttemptRow,
    ChildRow,
    DecisionRow,
    DonorRow,
    MeasurementRow,
    RequestRow,
    SearchRow,
    SegmentRow,
    StepRow,
    TrainingRow,
)

Record = TypeVar("Record")
LARGEST = 2**63 - 1  # the largest integer that the databases store
LONGEST_NAME = 100
PARAMETERS = 500  # of one statement; every SQLite takes as many


class Reader(Database):
    """Reads searches, children, attempts, measurements, steps and weights, as frozen records."""

    def searches(self) -> list[Search]:
        with self._read() as connection:
            return [record(Search, row) for row in connection.execute(select(SearchRow).order_by(SearchRow.id))]

    def readable_searches(self) -> tuple[list[Search], dict[str, StoreError]]:
        """The searches that can be read, and why each of the others cannot, by its name."""
        with contextlib.suppress(StoreError):
            return self.searches(), {}
        readable: list[Search] = []
        errors: dict[str, StoreError] = {}
        with self._read() as connection:
            names = connection.execute(select(SearchRow.id, SearchRow.name).order_by(SearchRow.id)).all()
        for search_id, name in names:
            try:
                with self._read() as connection:
                    row = connection.execute(select(SearchRow).where(SearchRow.id == search_id)).one()
                    readable.append(record(Search, row))
            except StoreError as error:
                errors[name if isinstance(name, str) else f"number {search_id}"] = error
        return readable, errors

    def search(self, name: str) -> Search:
        """The search of this name. Raises UnknownSearchError, which lists the nearest names."""
        with self._read() as connection:
            return self._search(connection, name)

    def has_search(self, name: str) -> bool:
        """Whether there is a search of this name. The store may have an earlier schema, or none yet."""
        if not self._exists:
            return False
        with self._read() as connection:
            if not inspect(connection).has_table(SearchRow.__tablename__):
                return False
            return connection.scalar(select(SearchRow.id).where(SearchRow.name == name)) is not None

    def last_step(self, search_id: int) -> Step | None:
        with self._read() as connection:
            query = select(StepRow).where(StepRow.search_id == search_id).order_by(StepRow.number.desc()).limit(1)
            row = connection.execute(query).first()
            return None if row is None else record(Step, row)

    def endings(self, search_id: int) -> list[EndingCount]:
        """Counts of trained children by ending and by whether the screening test rejected them, each with the best
        reward."""
        kind = (ChildRow.ending, ChildRow.screened)
        query = (
            select(*kind, func.count(), func.max(ChildRow.reward))
            .where(ChildRow.search_id == search_id, ChildRow.state == State.TRAINED)
            .group_by(*kind)
        )
        with self._read() as connection:
            return [EndingCount(*row) for row in connection.execute(query).all()]

    def claims_of(self, search_id: int, worker: str) -> list[Claim]:
        """The claims of a worker on its running children, in number order."""
        running = (ChildRow.search_id == search_id, ChildRow.state == State.RUNNING, ChildRow.worker == worker)
        with self._read() as connection:
            rows = connection.execute(select(ChildRow).where(*running).order_by(ChildRow.number)).all()
            return [claim_of(row, row.fence, worker) for row in rows]

    def running(self, search_id: int) -> list[RunningAttempt]:
        """The attempts in progress, in order of the children's numbers."""
        with self._read() as connection:
            return [
                RunningAttempt(*row) for row in connection.execute(queries.RUNNING_ATTEMPTS, {"of_search": search_id})
            ]

    def ended(self, search_id: int, *, since: float) -> list[EndedAttempt]:
        """The final attempts of children that ended since a time (seconds since 1970), in order of their ends."""
        with self._read() as connection:
            rows = connection.execute(queries.ENDED, {"of_search": search_id, "since": since}).all()
        # A paused child that is being continued still has the time of its first end.
        return [EndedAttempt(row.number, row.fence, row.finished) for row in rows if row.state in FINAL]

    def measurements_after(self, child_id: int, fence: int, *, epoch: int) -> list[Measurement]:
        """The measurements of an attempt after an epoch, in order of epochs."""
        of_attempt = {"of_child": child_id, "of_fence": fence, "of_epoch": epoch}
        with self._read() as connection:
            return [record(Measurement, row) for row in connection.execute(queries.MEASURED_AFTER, of_attempt)]

    def children(
        self,
        search_id: int,
        *,
        batch: int | None = None,
        number: int | None = None,
        states: Sequence[State] = (),
        first: int = 0,
    ) -> list[Child]:
        """The children that fulfil all given conditions, in number order.

        Args:
            batch: only children of this batch.
            number: only the child of this number.
            states: only children in one of these states; all if empty.
            first: the lowest number.
        """
        query = select(ChildRow).where(ChildRow.search_id == search_id)
        if first > 0:
            query = query.where(ChildRow.number >= first)
        # With an order by numbers, SQLite would search for the batch among all children.
        query = query.order_by(ChildRow.number) if batch is None else query.where(ChildRow.batch == batch)
        if number is not None and abs(number) > LARGEST:
            return []
        if number is not None:
            query = query.where(ChildRow.number == number)
        if states:
            query = query.where(ChildRow.state.in_(states))
        return sorted(self._children(query), key=lambda child: child.number)

    def top(self, search_id: int, count: int) -> list[Child]:
        """The best trained children that no task ended early, best first; equal rewards in number order."""
        trained = (ChildRow.state == State.TRAINED, ChildRow.ending.is_(None))
        query = select(ChildRow).where(ChildRow.search_id == search_id, *trained)
        return self._children(query.order_by(ChildRow.reward.desc(), ChildRow.number).limit(min(count, LARGEST)))

    def ranked(self, search_id: int, *, most: int) -> list[RankedChild]:
        """The trained children, best first; equal ones in number order. At most `most` children."""
        query = (
            select(ChildRow.number, ChildRow.reward)
            .where(ChildRow.search_id == search_id, ChildRow.state == State.TRAINED)
            .order_by(ChildRow.reward.desc(), ChildRow.number)
            .limit(most)
        )
        with self._read() as connection:
            return [record(RankedChild, row) for row in connection.execute(query)]

    def numbered(self, search_id: int, numbers: Sequence[int]) -> list[Child]:
        """The children of these numbers, in any order."""
        of_search = select(ChildRow).where(ChildRow.search_id == search_id)
        found = []
        for first in range(0, len(numbers), PARAMETERS):
            found += self._children(of_search.where(ChildRow.number.in_(numbers[first : first + PARAMETERS])))
        return found

    def latest(self, search_id: int, count: int) -> list[Child]:
        """The trained children with the highest numbers, highest first."""
        query = select(ChildRow).where(ChildRow.search_id == search_id, ChildRow.state == State.TRAINED)
        return self._children(query.order_by(ChildRow.number.desc()).limit(count))

    def upcoming(self, search_id: int, count: int) -> list[tuple[int, int, int | None]]:
        """Number, batch and FLOPs of the ready children with the lowest numbers."""
        query = (
            select(ChildRow.number, ChildRow.batch, ChildRow.flops)
            .where(ChildRow.search_id == search_id, ChildRow.state == State.READY)
            .order_by(ChildRow.number)
            .limit(count)
        )
        with self._read() as connection:
            return [(number, batch, flops) for number, batch, flops in connection.execute(query)]

    def last_segment(self, search_id: int) -> Segment | None:
        query = select(SegmentRow).where(SegmentRow.search_id == search_id).order_by(SegmentRow.number.desc()).limit(1)
        with self._read() as connection:
            row = connection.execute(query).first()
            return None if row is None else record(Segment, row)

    def hashes(self, search_id: int) -> set[str]:
        """Canonical hashes of all children."""
        with self._read() as connection:
            return set(connection.scalars(select(ChildRow.canonical_hash).where(ChildRow.search_id == search_id)))

    def unrecorded(self, search_id: int) -> list[Child]:
        """The children whose decisions are not recorded, since automl 0.1.0 proposed them."""
        return self._children(
            select(ChildRow)
            .where(ChildRow.search_id == search_id, ChildRow.decisions.is_(null()))
            .order_by(ChildRow.number)
        )

    def decisions(self, search_id: int) -> list[dict[str, Any]]:
        """The decisions of a search's children, each once; `Child.decisions` are indices into this list."""
        query = select(DecisionRow.decision).where(DecisionRow.search_id == search_id).order_by(DecisionRow.number)
        with self._read() as connection:
            return list(connection.scalars(query))

    def donors(self, search_id: int) -> list[Donor]:
        """What the search received from earlier ones."""
        query = select(DonorRow).where(DonorRow.search_id == search_id).order_by(DonorRow.number)
        with self._read() as connection:
            return [record(Donor, row) for row in connection.execute(query)]

    def progress(self, search_id: int) -> Progress:
        """Counts for every turn of the loop, from indices: as fast after a million children as after ten."""
        with self._read() as connection:
            row = connection.execute(queries.PROGRESS, {"of_search": search_id}).one()
        return Progress(row.num_trained, row.ready, row.running, row.stop_requested is not None)

    def is_complete(self, search_id: int, batch: int) -> bool:
        """Whether every child of the batch is trained, failed or lost."""
        with self._read() as connection:
            return connection.scalar(queries.UNFINISHED, {"of_search": search_id, "of_batch": batch}) is None

    def failed(self, search_id: int, *, first: int) -> bool:
        """Whether any child from number `first` on has failed or is lost."""
        with self._read() as connection:
            return connection.scalar(queries.FAILED, {"of_search": search_id, "from_number": first}) is not None

    def failures(self, search_id: int) -> list[FailureCount]:
        """Failed and lost children by fault and message, the most frequent first."""
        count = func.count()
        query = (
            select(ChildRow.state, ChildRow.fault, ChildRow.message, count)
            .where(ChildRow.search_id == search_id, ChildRow.state.in_((State.FAILED, State.LOST)))
            .group_by(ChildRow.state, ChildRow.fault, ChildRow.message)
            .order_by(count.desc(), func.min(ChildRow.number))
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
            return [FailureCount(state, fault or "", message, number) for state, fault, message, number in rows]

    def first_ended(self, search_id: int, *, since: float, count: int) -> list[Child]:
        """The first children that ended since a time (seconds since 1970), in order of their ends."""
        query = select(ChildRow).where(
            # Not `in FINAL`, with which SQLite would read all children that have ended.
            ChildRow.search_id == search_id,
            ChildRow.state.not_in((State.READY, State.RUNNING)),
            ChildRow.finished >= since,
        )
        return self._children(query.order_by(ChildRow.finished, ChildRow.number).limit(count))

    def counts(self, search_id: int) -> dict[str, int]:
        """The number of children in each state. That of trained children is stored in the search's row."""
        with self._read() as connection:
            row = connection.execute(queries.COUNTS, {"of_search": search_id}).one()
        counts = {State.READY: row.ready, State.RUNNING: row.running, State.TRAINED: row.num_trained}
        counts |= {State.FAILED: row.failed, State.LOST: row.lost}
        return {state.value: counts[state] for state in State}

    def attempts(self, child_id: int) -> list[Attempt]:
        with self._read() as connection:
            query = select(AttemptRow).where(AttemptRow.child_id == child_id).order_by(AttemptRow.fence)
            return [record(Attempt, row) for row in connection.execute(query)]

    def measurements(self, child_id: int) -> list[Measurement]:
        """The accepted measurements of a child: those of its last attempt."""
        with self._read() as connection:
            fence = select(ChildRow.fence).where(ChildRow.id == child_id).scalar_subquery()
            query = (
                select(MeasurementRow)
                .where(MeasurementRow.child_id == child_id, MeasurementRow.fence == fence)
                .order_by(MeasurementRow.epoch)
            )
            return [record(Measurement, row) for row in connection.execute(query)]

    def epochs_before(self, claim: Claim) -> int:
        """The last epoch that earlier attempts at a claimed child measured; 0 if there is none."""
        of_earlier = (MeasurementRow.child_id == claim.child_id, MeasurementRow.fence < claim.fence)
        with self._read() as connection:
            return connection.scalar(select(func.max(MeasurementRow.epoch)).where(*of_earlier)) or 0

    def requests(self, search_id: int, *, answered: bool = False) -> list[Request]:
        """Users' requests for children that are not answered yet, oldest first; with `answered`, all of them."""
        query = select(RequestRow).where(RequestRow.search_id == search_id).order_by(RequestRow.id)
        if not answered:
            query = query.where(RequestRow.child.is_(None), RequestRow.refusal.is_(None))
        with self._read() as connection:
            return [record(Request, row) for row in connection.execute(query)]

    def trainings(self, child_id: int) -> list[Training]:
        """The trainings of a child after the search, oldest first."""
        query = (
            select(TrainingRow)
            .where(TrainingRow.child_id == child_id)
            .order_by(TrainingRow.finished, TrainingRow.recipe_hash, TrainingRow.seed)
        )
        with self._read() as connection:
            return [record(Training, row) for row in connection.execute(query)]

    def trained_again(self, search_id: int) -> dict[int, list[Training]]:
        """The trainings after the search of all children, by the child's number, oldest first."""
        query = (
            select(ChildRow.number, TrainingRow)
            .join(TrainingRow, TrainingRow.child_id == ChildRow.id)
            .where(ChildRow.search_id == search_id)
            .order_by(ChildRow.number, TrainingRow.finished, TrainingRow.recipe_hash, TrainingRow.seed)
        )
        trainings: dict[int, list[Training]] = {}
        with self._read() as connection:
            for row in connection.execute(query):
                trainings.setdefault(row.number, []).append(record(Training, row))
        return trainings

    def curves(self, search_id: int, metric: str, *, finished_since: float = 0.0) -> list[Curve]:
        """A metric by epoch, of the children that were trained since a time (seconds since 1970), in number order."""
        of_child = (MeasurementRow.child_id == ChildRow.id) & (MeasurementRow.fence == ChildRow.fence)
        query = (
            select(
                ChildRow.number,
                ChildRow.reward,
                ChildRow.finished,
                ChildRow.stopped_at,
                MeasurementRow.epoch,
                MeasurementRow.metrics,
            )
            .join(MeasurementRow, of_child)
            .where(
                ChildRow.search_id == search_id,
                ChildRow.state == State.TRAINED,
                ChildRow.finished >= finished_since,
            )
            .order_by(ChildRow.number, MeasurementRow.epoch)
        )
        curves: dict[int, Curve] = {}
        with self._read() as connection:
            for number, reward, finished, stopped_at, epoch, metrics in connection.execute(query):
                curve = curves.setdefault(number, Curve(number, reward, finished, stopped_at is not None, {}))
                if metric in metrics:
                    curve.values[epoch] = metrics[metric]
        return list(curves.values())

    def segments(self, search_id: int) -> list[Segment]:
        with self._read() as connection:
            query = select(SegmentRow).where(SegmentRow.search_id == search_id).order_by(SegmentRow.number)
            return [record(Segment, row) for row in connection.execute(query)]

    def steps(self, search_id: int) -> list[Step]:
        """All controller steps in order, without their blobs."""
        columns = [
            getattr(StepRow, field.name).label(field.name)
            for field in dataclasses.fields(Step)
            if field.name not in ("blob", "blob_sha256")
        ]
        with self._read() as connection:
            query = select(*columns).where(StepRow.search_id == search_id).order_by(StepRow.number)
            return [Step(**row._mapping, blob=None, blob_sha256=None) for row in connection.execute(query)]

    def lowest_reward(self, search_id: int, *, before_batch: int) -> float | None:
        """The lowest reward among the consumed children of earlier batches; None if there is none."""
        with self._read() as connection:
            lowest = connection.execute(
                queries.LOWEST_REWARDS, {"of_search": search_id, "of_batch": before_batch}
            ).one()
        return min((reward for reward in lowest if reward is not None), default=None)

    def digest(self, search_id: int) -> str:
        """The hash of a search, which equal searches share (`db.digest`)."""
        columns = [getattr(ChildRow, name) for name in (*DIGESTED, *FLAGS)]  # reading all columns takes twice as long
        children = select(*columns).where(ChildRow.search_id == search_id, ChildRow.state.in_(FINAL))
        steps = select(StepRow.number, StepRow.state_hash).where(StepRow.search_id == search_id)
        with self._read() as connection:
            return digest(
                connection.execute(children.order_by(ChildRow.number)).all(),
                connection.execute(steps.order_by(StepRow.number)).all(),
            )

    def weights(self, child_id: int, kind: str = "search") -> dict[str, Any] | None:
        """The stored weights of a child by name, or None if there are none. Raises StoreError if they are damaged."""
        with self._read() as connection:
            row = connection.execute(
                select(ArtefactRow).where(ArtefactRow.child_id == child_id, ArtefactRow.kind == kind)
            ).first()
        if row is None:
            return None
        artefact = record(Artefact, row)
        blob = artefact.blob
        if blob is None:
            path = self._artefact_path(artefact.child_id, artefact.kind, artefact.sha256)
            if path is None:
                raise StoreError(f"{self} has weights with a kind or a checksum that automl never writes.")
            try:
                blob = own_files.read(path, own=1)
            except OSError as error:
                raise StoreError(
                    f"The weights file {path} cannot be read: {error.strerror}; put it back, or train the child again "
                    "with automl train."
                ) from error
        return blobs.unpack(blob, artefact.sha256)

    def _artefact_path(self, child_id: int, kind: str, checksum: str) -> Path | None:
        """The file of weights that are too large for the database, or None if a value is not valid.

        The path is not stored, because a store from another user must not choose which files are read or deleted.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", checksum) or not re.fullmatch(r"search|train/[0-9A-Za-z]+/-?[0-9]+", kind):
            return None
        # Equal weights of two trainings have separate files, so that each can be deleted.
        return self._artefacts_dir / f"{int(child_id)}-{kind.replace('/', '-')}-{checksum}.npz"

    def _find(self, connection: Connection, name: str) -> Search | None:
        row = connection.execute(select(SearchRow).where(SearchRow.name == name)).first()
        return None if row is None else record(Search, row)

    def _search(self, connection: Connection, name: str) -> Search:
        search = self._find(connection, name)
        if search is None:
            from difflib import SequenceMatcher

            names = [other for other in connection.scalars(select(SearchRow.name)) if isinstance(other, str)]
            names = sorted(names, key=lambda other: -SequenceMatcher(None, name, other).ratio())[:8]
            known = f"it has {', '.join(map(_shortened, names))}" if names else "it has none yet"
            raise UnknownSearchError(f"There is no search called {name!r} in {self}; {known}.")
        return search

    def _children(self, query: Select[Any]) -> list[Child]:
        with self._read() as connection:
            return [record(Child, row) for row in connection.execute(query)]


def claim_of(child: Any, fence: int, worker: str) -> Claim:
    """A worker's claim on the child of a row."""
    decisions = None if child.decisions is None else tuple(child.decisions)
    tokens = tuple(child.tokens)
    return Claim(child.id, child.search_id, child.number, fence, worker, tokens, child.seed, child.spec, decisions)


def record(kind: type[Record], row: Any) -> Record:
    """Turns a row into a record. Raises StoreError if a value has a type that automl does not write."""
    mapping = row._mapping
    values = {}
    for name, fits in _types_of(kind):  # type: ignore[arg-type]
        value = values[name] = mapping[name]
        if not fits(value):
            shown = repr(value)
            raise StoreError(
                f"The store holds a {_words(kind.__name__)} whose {name} is "
                f"{shown if len(shown) <= 60 else f'{shown[:60]}…'}, which automl never writes; it is damaged, or "
                "another program has changed it. Restore it from a backup."
            )
    return kind(**values)


def _is_finite(value: object) -> bool:
    if type(value) is int:
        return abs(value) <= sys.float_info.max
    return type(value) is float and math.isfinite(value)


def _words(name: str) -> str:
    """The name of a class in words: `ranked child`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _shortened(name: str) -> str:
    """A name of a search for a message; automl gives none that is longer, but another program may have."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"


@functools.cache
def _types_of(kind: type) -> list[tuple[str, Callable[[Any], bool]]]:
    """The name of each field of a record, and a test whether a value has the field's type."""
    hints = get_type_hints(kind)
    return [(field.name, _type_test(hints[field.name])) for field in dataclasses.fields(kind)]


def _type_test(hint: Any) -> Callable[[Any], bool]:
    if hint is Any:
        return lambda value: True
    if hint is float:  # an integral value may be stored as an integer
        return _is_finite
    if isinstance(hint, type):
        return lambda value: type(value) is hint
    tests = [_type_test(inner) for inner in get_args(hint)]
    if get_origin(hint) is list:
        (item,) = tests
        return lambda value: type(value) is list and all(map(item, value))
    if get_origin(hint) is dict:
        _, item = tests
        return lambda value: type(value) is dict and all(map(item, value.values()))
    return lambda value: any(test(value) for test in tests)
