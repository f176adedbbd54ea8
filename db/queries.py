"""The statements that every child or turn needs, built once: building and hashing one takes longer than running it.

Parameters that select rows are named `of_search`, `of_child`, …, because SQLAlchemy writes a parameter with the name of
a column to that column.
"""

from __future__ import annotations

import sys

from sqlalchemy import BindParameter, bindparam, delete, func, insert, select, update

from automl.db.records import FINAL, State
from automl.db.schema import AttemptRow, ChildRow, MeasurementRow, SearchRow

_of_search: BindParameter[int] = bindparam("of_search")
_in_search = ChildRow.search_id == _of_search
_count = select(func.count()).select_from(ChildRow).where(_in_search)

PROGRESS = select(
    SearchRow.num_trained,
    SearchRow.stop_requested,
    _count.where(ChildRow.state == State.READY).scalar_subquery().label("ready"),
    _count.where(ChildRow.state == State.RUNNING).scalar_subquery().label("running"),
).where(SearchRow.id == _of_search)

COUNTS = select(
    SearchRow.num_trained,
    *(
        _count.where(ChildRow.state == state).scalar_subquery().label(state)
        for state in (State.READY, State.RUNNING, State.FAILED, State.LOST)
    ),
).where(SearchRow.id == _of_search)

# The lowest reward among the consumed children of earlier batches, for each state: the first match in the index.
LOWEST_REWARDS = select(
    *(
        select(ChildRow.reward)
        .where(
            _in_search,
            ChildRow.state == state,
            ChildRow.reward >= -sys.float_info.max,  # for SQLite, `is not null` is no range of an index
            ChildRow.batch < bindparam("of_batch"),
            ChildRow.consumed_by.is_not(None),
        )
        .order_by(ChildRow.reward)
        .limit(1)
        .scalar_subquery()
        .label(state)
        for state in State
    )
)

UNFINISHED = (
    select(ChildRow.id)
    .where(_in_search, ChildRow.batch == bindparam("of_batch"), ChildRow.state.not_in(FINAL))
    .limit(1)
)
FAILED = (
    select(ChildRow.id)
    .where(_in_search, ChildRow.state.in_((State.FAILED, State.LOST)), ChildRow.number >= bindparam("from_number"))
    .limit(1)
)

# New events. ENDED has no condition on the state: with one, SQLite would use the index of states and read all children
# that have ended.

RUNNING_ATTEMPTS = (
    select(ChildRow.id, ChildRow.number, ChildRow.fence, AttemptRow.device, AttemptRow.slot)
    .join(AttemptRow, (AttemptRow.child_id == ChildRow.id) & (AttemptRow.fence == ChildRow.fence))
    .where(_in_search, ChildRow.state == State.RUNNING)
    .order_by(ChildRow.number)
)
ENDED = (
    select(ChildRow.number, ChildRow.fence, ChildRow.state, ChildRow.finished)
    .where(_in_search, ChildRow.finished >= bindparam("since"))
    .order_by(ChildRow.finished, ChildRow.number)
)
MEASURED_AFTER = (
    select(MeasurementRow)
    .where(
        MeasurementRow.child_id == bindparam("of_child"),
        MeasurementRow.fence == bindparam("of_fence"),
        MeasurementRow.epoch > bindparam("of_epoch"),
    )
    .order_by(MeasurementRow.epoch)
)

# Claiming and delivering

LOCKED_SEARCH = (
    select(SearchRow.id, SearchRow.state, SearchRow.epoch, SearchRow.budget, SearchRow.num_trained)
    .where(SearchRow.id == _of_search)
    .with_for_update()
)
EXPIRED = (
    select(ChildRow)
    .where(_in_search, ChildRow.state == State.RUNNING, ChildRow.lease_until < bindparam("at"))
    .with_for_update()
)
RUNNING = _count.where(ChildRow.state == State.RUNNING)
LOWEST_READY = (
    select(ChildRow.id, ChildRow.batch, ChildRow.flops, ChildRow.number)
    .where(_in_search, ChildRow.state == State.READY)
    .order_by(ChildRow.number)
    .limit(bindparam("most"))
)
CHILD = select(ChildRow).where(ChildRow.id == bindparam("of_child"))
CLAIMED_CHILD = CHILD.where(ChildRow.fence == bindparam("of_fence"), ChildRow.state == State.RUNNING).with_for_update()

CHANGE_CHILD = update(ChildRow).where(ChildRow.id == bindparam("of_child"))
CHANGE_CLAIMED_CHILD = CHANGE_CHILD.where(ChildRow.fence == bindparam("of_fence"), ChildRow.state == State.RUNNING)
ADVANCE_CLAIMED_CHILD = CHANGE_CLAIMED_CHILD.values(progress=ChildRow.progress + 1)
COUNT_TRAINED = (
    update(SearchRow).where(SearchRow.id == _of_search).values(num_trained=SearchRow.num_trained + 1, unclean=0)
)
BEGIN_ATTEMPT = insert(AttemptRow)
CHANGE_ATTEMPT = update(AttemptRow).where(
    AttemptRow.child_id == bindparam("of_child"), AttemptRow.fence == bindparam("of_fence")
)

DROP_MEASUREMENT = delete(MeasurementRow).where(
    MeasurementRow.child_id == bindparam("of_child"),
    MeasurementRow.fence == bindparam("of_fence"),
    MeasurementRow.epoch == bindparam("of_epoch"),
)
ADD_MEASUREMENT = insert(MeasurementRow)

# Controller steps

CONSUME = update(ChildRow).where(_in_search, ChildRow.number == bindparam("of_number"))
RECORD_DECISIONS = CONSUME.values(decisions=bindparam("decisions"))
