"""What callers get from the store: frozen records, and the words for states and faults."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = Any  # what JSON holds: a number, a text, true, false, None, a list or a dict of these


class State(enum.StrEnum):
    """Where a child stands."""

    READY = "ready"
    RUNNING = "running"
    TRAINED = "trained"
    FAILED = "failed"  # the child's own fault; the controller is told the task's floor
    LOST = "lost"  # the machine's fault, too often; no reward, no weight in the gradient


FINAL = (State.TRAINED, State.FAILED, State.LOST)


class SearchState(enum.StrEnum):
    """Where a search stands. Every state but the first two can be resumed at once."""

    RUNNING = "running"
    STOPPING = "stopping"  # running children get a grace; nothing more is claimed
    PAUSED = "paused"
    FINISHED = "finished"  # its budget of children is trained
    EXHAUSTED = "exhausted"  # its space has no child left


class Fault(enum.StrEnum):
    """Why an attempt ended without a reward."""

    RAISED = "raised"
    DIVERGED = "diverged"
    INVALID = "invalid"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    NODE_LOST = "node_lost"
    STORE_LOST = "store_lost"
    INTERRUPTED = "interrupted"


# How many charged attempts a child gets before it is final, by fault. An interrupted attempt is never charged.
ATTEMPTS: Mapping[Fault, int] = {
    Fault.RAISED: 1,
    Fault.DIVERGED: 1,
    Fault.INVALID: 1,
    Fault.OOM: 1,
    Fault.TIMEOUT: 1,
    Fault.CRASHED: 2,
    Fault.NODE_LOST: 5,
    Fault.STORE_LOST: 5,
}
MACHINE_FAULTS = (Fault.NODE_LOST, Fault.STORE_LOST)


class Origin(enum.StrEnum):
    """Where a child's tokens come from."""

    POLICY = "policy"
    NEIGHBOUR = "neighbour"
    USER = "person"


@dataclasses.dataclass(frozen=True)
class Search:
    """One experiment. `settings` is all that was asked for; `budget` the children that may be trained."""

    id: int
    name: str
    state: str
    cause: str | None
    space: str
    task: str
    controller: str
    seed: int
    replicas: int
    batch_size: int
    threads: int
    settings: dict[str, Any]
    budget: int | None
    num_trained: int
    refused: dict[str, int]
    epoch: int
    owner: dict[str, Any] | None
    lease_until: float | None
    unclean: int
    created: float
    stop_requested: float | None


@dataclasses.dataclass(frozen=True)
class Segment:
    """One start or resume of a search. Times in seconds since 1970, by the database's clock."""

    search_id: int
    number: int
    started: float
    ended: float | None
    ending: str | None
    children: int | None
    time: float | None
    workers: int
    versions: dict[str, str]
    machine: dict[str, Any]
    user_files: dict[str, Any]
    changes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Child:
    """One sampled candidate and its training."""

    id: int
    search_id: int
    number: int
    batch: int
    policy_step: int
    origin: str
    tries: int
    tokens: list[int]
    log_probs: list[float | None]
    canonical_hash: str
    spec: Json
    seed: int
    params: int | None
    flops: int | None
    population: int | None  # the lowest number among the children that this one is to be trained with
    isolated: bool  # a worker died while it trained this child beside others: from then on it is trained by itself
    state: str
    fault: str | None
    message: str | None
    reward: float | None
    metrics: dict[str, Any] | None  # the task's own, whatever their names
    consumed_by: int | None
    fence: int
    worker: str | None
    lease_until: float | None
    progress: int
    attempts: int
    interruptions: int
    started: float | None
    finished: float | None
    seconds: float | None
    phases: dict[str, float] | None
    stopped_at: int | None = None  # the last epoch of a child that was stopped early; its reward is a prediction
    ending: str | None = None  # why a built-in task did not train it to its end, or None
    screened: bool = False  # whether the screening test rejected it
    decisions: list[int] | None = None  # numbers of the decisions that the tokens answer; None: not recorded


@dataclasses.dataclass(frozen=True)
class EndingCount:
    """Trained children that ended alike."""

    why: str | None  # None: trained to its end
    screened: bool
    count: int
    best: float | None


@dataclasses.dataclass(frozen=True)
class FailureCount:
    """Children that failed or were lost with one fault and one message."""

    state: str
    fault: str
    message: str | None
    count: int


@dataclasses.dataclass(frozen=True)
class NewChild:
    """A proposal on its way into the store."""

    number: int
    batch: int
    policy_step: int
    origin: str
    tries: int
    tokens: tuple[int, ...]
    log_probs: tuple[float | None, ...]
    canonical_hash: str
    spec: Json
    seed: int
    params: int | None
    flops: int | None
    population: int | None = None
    decisions: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One worker's try at a child."""

    child_id: int
    fence: int
    worker: str
    device: str
    started: float
    ended: float | None
    fault: str | None
    exit_code: int | None
    signal: int | None
    charged: bool
    log: str | None
    slot: int | None = None  # the worker's place in its pool; None for a worker without one, and before 0.2.0


@dataclasses.dataclass(frozen=True)
class RunningAttempt:
    """An attempt that a worker is making; `fence` tells the attempts at one child apart."""

    child_id: int
    number: int
    fence: int
    device: str
    slot: int | None


@dataclasses.dataclass(frozen=True)
class EndedAttempt:
    """The attempt after which a child was final, and when, by the database's clock."""

    number: int
    fence: int
    finished: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The metrics of one epoch of one attempt; those of the delivering fence are the accepted ones."""

    child_id: int
    fence: int
    epoch: int
    metrics: dict[str, Any]
    at: float


@dataclasses.dataclass(frozen=True)
class Step:
    """One controller step: `blob` is the state after learning from `consumed_batch` (None: the first state)."""

    number: int
    consumed_batch: int | None
    stats: dict[str, Any]
    state_hash: str
    blob: bytes | None
    blob_sha256: str | None


@dataclasses.dataclass(frozen=True)
class Artefact:
    """The weights of a child at one epoch."""

    child_id: int
    kind: str
    epoch: int
    sha256: str
    size: int
    blob: bytes | None  # None: in a file that this row's key and checksum name


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a search is: children by state, and whether someone asked it to stop."""

    trained: int
    ready: int
    running: int
    stop_requested: bool


@dataclasses.dataclass(frozen=True)
class Request:
    """A user's request for a child. `child` is its number once it is proposed, `refusal` why it was not; `spec` is the
    spec of its tokens when it was requested, or None if unknown."""

    id: int
    search_id: int
    tokens: list[int]
    made: float
    child: int | None
    refusal: str | None
    spec: Json = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of a trained child by epoch. `stopped`: its reward was predicted from a part of it."""

    number: int
    reward: float
    finished: float
    stopped: bool
    values: dict[int, float]


@dataclasses.dataclass(frozen=True)
class Training:
    """A child trained again after the search, with one recipe and one seed."""

    child_id: int
    recipe_hash: str
    seed: int
    recipe: dict[str, Any]
    reward: float
    metrics: dict[str, Any]
    seconds: float
    finished: float
    ending: str | None = None  # as of a child


@dataclasses.dataclass(frozen=True)
class Lease:
    """A coordinator's right to write a search; it ends when the epoch in the row is a higher one. `state` and `cause`
    are those that the search had before."""

    search_id: int
    epoch: int
    state: str = dataclasses.field(default=SearchState.PAUSED, compare=False)
    cause: str | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A worker's right to deliver a child; it ends when the fence in the row is a higher one."""

    child_id: int
    search_id: int
    number: int
    fence: int
    worker: str
    tokens: tuple[int, ...]
    seed: int
    spec: Json = None  # this and the rest as of `Child`
    decisions: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Delivery:
    """How a child ended: trained with a reward, or failed with a fault and a message. `phases` says where `seconds`
    went; `stopped_at`, `ending` and `screened` are those of `Child`."""

    reward: float | None = None
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stopped_at: int | None = None
    ending: str | None = None
    screened: bool = False
    fault: Fault | None = None
    message: str | None = None
    log: str | None = None
    seconds: float | None = None
    phases: Mapping[str, float] = dataclasses.field(default_factory=dict)
    weights: bytes | None = None
    weights_epoch: int = 0


def is_search_name(name: object) -> bool:
    """Whether a search may have this name, which becomes that of folders and files."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


class StoreError(Exception):
    """The store cannot do what was asked; the message is one sentence for the user."""


class StaleLeaseError(StoreError):
    """Another coordinator has taken the search over: nothing was written."""


class LeaseHeldError(StoreError):
    """Another process is the search's coordinator."""


class UnknownSearchError(StoreError):
    """No search of this name is in the store."""


class NameTakenError(StoreError):
    """A search of this name is already in the store."""
