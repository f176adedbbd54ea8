"""Adds how a child's training ended, apart from the task's metrics; the decisions that a child's tokens answer; the
slot of an attempt's worker; the children of earlier searches that a search received; and an index of children by the
time of their end. Stores no paths of weights any more."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON()
SEARCHES = sa.table("searches", sa.column("id", sa.Integer), sa.column("settings", JSON))
CHILDREN = sa.table(
    "children",
    sa.column("id", sa.BigInteger),
    sa.column("search_id", sa.Integer),
    sa.column("fence", sa.Integer),
    sa.column("metrics", JSON),
    sa.column("stopped_at", sa.Integer),
    sa.column("ending", sa.Text),
    sa.column("screened", sa.Boolean),
)
MEASUREMENTS = sa.table(
    "measurements",
    sa.column("child_id", sa.BigInteger),
    sa.column("fence", sa.Integer),
    sa.column("epoch", sa.Integer),
    sa.column("metrics", JSON),
)
TRAININGS = sa.table(
    "trainings",
    sa.column("child_id", sa.BigInteger),
    sa.column("recipe_hash", sa.Text),
    sa.column("seed", sa.BigInteger),
    sa.column("metrics", JSON),
    sa.column("ending", sa.Text),
)
LISTS = ("decisions", "answered", "tokens", "rewards", "ranks")  # of a donor
FLAGS = ("stopped", "ended", "screened")  # among the metrics of 0.1.0


def upgrade() -> None:
    op.add_column("children", sa.Column("stopped_at", sa.Integer(), nullable=True))
    op.add_column("children", sa.Column("ending", sa.Text(), nullable=True))
    op.add_column("children", sa.Column("screened", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("attempts", sa.Column("slot", sa.Integer(), nullable=True))
    op.create_index("ix_children_search_id_finished", "children", ["search_id", "finished"])
    op.add_column("trainings", sa.Column("ending", sa.Text(), nullable=True))
    op.drop_column("artefacts", "path")
    op.create_table(
        "decisions",
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("decision", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["search_id"], ["searches.id"], name=op.f("fk_decisions_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", "number", name=op.f("pk_decisions")),
    )
    op.create_table(
        "donors",
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "store", "space", "task")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("trained", "tried", "fitting")),
        *(sa.Column(name, JSON, nullable=False) for name in LISTS),
        sa.ForeignKeyConstraint(["search_id"], ["searches.id"], name=op.f("fk_donors_search_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("search_id", "number", name=op.f("pk_donors")),
    )
    op.add_column("children", sa.Column("decisions", JSON, nullable=True))
    op.add_column("requests", sa.Column("spec", JSON, nullable=True))
    connection = op.get_bind()
    for search_id, text in connection.execute(sa.select(SEARCHES.c.id, sa.cast(SEARCHES.c.settings, sa.Text))).all():
        settings = _object(text)
        task = settings.get("task")
        task = task if isinstance(task, dict) else {}
        own = task.get("file") is not None or str(task.get("name")).startswith("session:")
        _move_children(connection, search_id, own=own, stops=settings.get("early_stop", "none") != "none")
        if not own:
            _move_trainings(connection, search_id)


def _move_children(connection: sa.Connection, search_id: int, *, own: bool, stops: bool) -> None:
    """Moves the flags of a search's children out of their metrics. With a user's own task (`own`), they are metrics of
    the task, except for a `stopped` that only a worker can have written."""
    metrics = sa.cast(CHILDREN.c.metrics, sa.Text)
    flagged = sa.or_(*(metrics.contains(f'"{name}"') for name in FLAGS))
    query = sa.select(CHILDREN.c.id, CHILDREN.c.fence, metrics).where(CHILDREN.c.search_id == search_id, flagged)
    for child_id, fence, text in connection.execute(query).all():
        kept = _object(text)
        flags: dict[str, Any] = {}
        if stops and _is_whole(kept.get("stopped")) and (not own or _is_stopped(connection, child_id, fence, kept)):
            flags["stopped_at"] = kept.pop("stopped")
        if not own and isinstance(kept.get("ended"), str):
            flags["ending"] = kept.pop("ended")
        if not own and kept.get("screened") is True:
            flags["screened"] = kept.pop("screened")
        if flags:
            connection.execute(sa.update(CHILDREN).where(CHILDREN.c.id == child_id).values(metrics=kept, **flags))


def _is_stopped(connection: sa.Connection, child_id: int, fence: int, metrics: dict[str, Any]) -> bool:
    """Whether a worker stopped this child: it then delivered the last epoch's metrics with that epoch as `stopped`."""
    query = (
        sa.select(MEASUREMENTS.c.epoch, sa.cast(MEASUREMENTS.c.metrics, sa.Text))
        .where(MEASUREMENTS.c.child_id == child_id, MEASUREMENTS.c.fence == fence)
        .order_by(MEASUREMENTS.c.epoch.desc())
        .limit(1)
    )
    last = connection.execute(query).first()
    return last is not None and _object(last[1]) | {"stopped": last[0]} == metrics


def _move_trainings(connection: sa.Connection, search_id: int) -> None:
    metrics = sa.cast(TRAININGS.c.metrics, sa.Text)
    children = sa.select(CHILDREN.c.id).where(CHILDREN.c.search_id == search_id)
    key = (TRAININGS.c.child_id, TRAININGS.c.recipe_hash, TRAININGS.c.seed)
    query = sa.select(*key, metrics).where(TRAININGS.c.child_id.in_(children), metrics.contains('"ended"'))
    for *values, text in connection.execute(query).all():
        kept = _object(text)
        if isinstance(kept.get("ended"), str):
            of_training = [column == value for column, value in zip(key, values, strict=True)]
            ending = kept.pop("ended")
            connection.execute(sa.update(TRAININGS).where(*of_training).values(metrics=kept, ending=ending))


def _object(text: str | None) -> dict[str, Any]:
    """The text as a JSON object; an empty one if the text is something else."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
