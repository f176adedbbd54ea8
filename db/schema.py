"""The tables: columns for what queries select by, JSON for the rest. Times are seconds since 1970."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

REVISION = "0004"  # the newest migration; a test compares it with the head of the migrations
APPLICATION_ID = 0x41_4D_4C_31  # "AML1" in the header of a SQLite file marks a store of automl

# Alembic needs the names of constraints in order to alter them.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class PlainText(TypeDecorator[str]):
    """Text in which NUL is replaced: PostgreSQL cannot store it, and a child may print anything."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Row(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        dict[str, Any]: JSON,
        list[int]: JSON,
        list[Any]: JSON,
        Any: JSON,
        str: PlainText,
        float: Double,
        bytes: LargeBinary,
    }


class SearchRow(Row):
    __tablename__ = "searches"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str]
    cause: Mapped[str | None]
    space: Mapped[str]
    task: Mapped[str]
    controller: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    replicas: Mapped[int]
    batch_size: Mapped[int]
    threads: Mapped[int]
    settings: Mapped[dict[str, Any]]
    budget: Mapped[int | None]
    num_trained: Mapped[int] = mapped_column(default=0)
    refused: Mapped[dict[str, Any]]
    epoch: Mapped[int] = mapped_column(default=0)
    owner: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    lease_until: Mapped[float | None]
    unclean: Mapped[int] = mapped_column(default=0)
    created: Mapped[float]
    stop_requested: Mapped[float | None]


class SegmentRow(Row):
    __tablename__ = "segments"

    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started: Mapped[float]
    ended: Mapped[float | None]
    ending: Mapped[str | None]
    children: Mapped[int | None]
    time: Mapped[float | None]
    workers: Mapped[int]
    versions: Mapped[dict[str, Any]]
    machine: Mapped[dict[str, Any]]
    user_files: Mapped[dict[str, Any]]
    changes: Mapped[dict[str, Any]]


class ChildRow(Row):
    __tablename__ = "children"
    __table_args__ = (
        UniqueConstraint("search_id", "number"),
        UniqueConstraint("search_id", "canonical_hash"),
        Index("ix_children_search_id_state_number", "search_id", "state", "number"),
        Index("ix_children_search_id_state_reward", "search_id", "state", "reward"),
        Index("ix_children_search_id_batch", "search_id", "batch"),
        Index("ix_children_search_id_finished", "search_id", "finished"),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"))
    number: Mapped[int]
    batch: Mapped[int]
    policy_step: Mapped[int] = mapped_column("drawn_under", key="policy_step")
    origin: Mapped[str]
    tries: Mapped[int]
    tokens: Mapped[list[int]]
    decisions: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    log_probs: Mapped[list[Any]]
    canonical_hash: Mapped[str]
    spec: Mapped[Any]
    seed: Mapped[int] = mapped_column(BigInteger)
    params: Mapped[int | None] = mapped_column(BigInteger)
    flops: Mapped[int | None] = mapped_column(BigInteger)
    population: Mapped[int | None]
    isolated: Mapped[bool] = mapped_column("alone", key="isolated", default=False, server_default=false())
    state: Mapped[str]
    fault: Mapped[str | None]
    message: Mapped[str | None]
    reward: Mapped[float | None]
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    stopped_at: Mapped[int | None]
    ending: Mapped[str | None]
    screened: Mapped[bool] = mapped_column(default=False, server_default=false())
    consumed_by: Mapped[int | None]
    fence: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None]
    lease_until: Mapped[float | None]
    progress: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    started: Mapped[float | None]
    finished: Mapped[float | None]
    seconds: Mapped[float | None]
    phases: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class DecisionRow(Row):
    """A decision that children of a search answer."""

    __tablename__ = "decisions"

    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    decision: Mapped[dict[str, Any]]


class DonorRow(Row):
    """What a search received from an earlier one when it was created."""

    __tablename__ = "donors"

    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    store: Mapped[str]
    space: Mapped[str]
    task: Mapped[str]
    trained: Mapped[int]
    tried: Mapped[int]
    fitting: Mapped[int]
    decisions: Mapped[list[Any]]
    answered: Mapped[list[Any]]
    tokens: Mapped[list[Any]]
    rewards: Mapped[list[Any]]
    ranks: Mapped[list[Any]]


class AttemptRow(Row):
    __tablename__ = "attempts"

    child_id: Mapped[int] = mapped_column(ForeignKey("children.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    slot: Mapped[int | None]
    device: Mapped[str]
    started: Mapped[float]
    ended: Mapped[float | None]
    fault: Mapped[str | None]
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    charged: Mapped[bool] = mapped_column(default=False)
    log: Mapped[str | None]


class MeasurementRow(Row):
    __tablename__ = "measurements"

    child_id: Mapped[int] = mapped_column(ForeignKey("children.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    metrics: Mapped[dict[str, Any]]
    at: Mapped[float]


class StepRow(Row):
    __tablename__ = "steps"

    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    consumed_batch: Mapped[int | None]
    stats: Mapped[dict[str, Any]] = mapped_column("figures", key="stats")
    state_hash: Mapped[str]
    blob: Mapped[bytes | None]
    blob_sha256: Mapped[str | None]


class ArtefactRow(Row):
    __tablename__ = "artefacts"

    child_id: Mapped[int] = mapped_column(ForeignKey("children.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    blob: Mapped[bytes | None]


class RequestRow(Row):
    __tablename__ = "requests"
    __table_args__ = (Index("ix_requests_search_id_child", "search_id", "child"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"))
    tokens: Mapped[list[int]]
    spec: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    made: Mapped[float]
    child: Mapped[int | None]
    refusal: Mapped[str | None]


class TrainingRow(Row):
    __tablename__ = "trainings"

    child_id: Mapped[int] = mapped_column(ForeignKey("children.id", ondelete="CASCADE"), primary_key=True)
    recipe_hash: Mapped[str] = mapped_column(primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    recipe: Mapped[dict[str, Any]]
    reward: Mapped[float]
    metrics: Mapped[dict[str, Any]]
    ending: Mapped[str | None]
    seconds: Mapped[float]
    finished: Mapped[float]
