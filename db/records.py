"""The frozen records that callers get from the store, and the names of states and faults."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = Any  # a JSON value: a number, a text, true, false, None, a list or a dict of these


class State(enum.StrEnum):
    """The state of a child."""

    READY = "ready"
    RUNNING = "running"
    TRAINED = "trained"
    FAILED = "failed"  # the child's fault; the controller receives the task's floor as its reward
    LOST = "lost"  # the machine's fault, in too many attempts; no reward, no weight in the gradient


FINAL = (State.TRAINED, State.FAILED, State.LOST)


class SearchState(enum.StrEnum):
    """The state of a search. A search in any state but the first two can be resumed at once."""

    RUNNING = "running"
    STOPPING = "stopping"  # running children get a grace period; nothing more is claimed
    PAUSED = "paused"
    FINISHED = "finished"  # its budget of children is trained
    EXHAUSTED = "exhausted"  # its space has no child left


class Fault(enum.StrEnum):
    """Why an attempt ended without a reward (docs/architecture.md, "States and faults")."""

    RAISED = "raised"
    DIVERGED = "diverged"
    INVALID = "invalid"
    OOM = "oom"
    GPU_OOM = "gpu_oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    NODE_LOST = "node_lost"
    STORE_LOST = "store_lost"
    INTERRUPTED = "interrupted"


# How many charged attempts make a child final, by fault. An interrupted attempt is never charged.
ATTEMPTS: Mapping[Fault, int] = {
    Fault.RAISED: 1,
    Fault.DIVERGED: 1,
    Fault.INVALID: 1,
    Fault.OOM: 1,
    Fault.GPU_OOM: 1,
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
    """One experiment.

    Attributes:
        settings: all that the user set, with the defaults.
        budget: how many children may be trained in all; None for no limit.
        refused: the number of refused draws, by reason.
        epoch: of the lease; it rises with every take-over.
        unclean: take-overs in a row from a coordinator that died, since the last delivery.
        created, lease_until, stop_requested: seconds since 1970, by the database's clock.
    """

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
    """One start or resume of a search. `started` and `ended` are seconds since 1970, by the database's clock; `time` is
    the time limit in seconds."""

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
    population: int | None  # the lowest number of the children that are trained together with this one
    isolated: bool  # a worker died while it trained this child with others; the child is now trained by itself
    state: str
    fault: str | None
    message: str | None
    reward: float | None
    metrics: dict[str, Any] | None  # the task's metrics by name
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
    ending: str | None = None  # why a built-in task ended its training early, or None
    screened: bool = False  # whether the screening test rejected it
    decisions: list[int] | None = None  # the numbers of the decisions that the tokens answer; None: not recorded


@dataclasses.dataclass(frozen=True)
class RankedChild:
    """A trained child among those of its search, in order of their rewards."""

    number: int
    reward: float


@dataclasses.dataclass(frozen=True)
class Donor:
    """What a search received from an earlier one when it was created.

    Attributes:
        name, store: of the earlier search, for the user. They are not read again: that store may be gone.
        space, task: of the earlier search.
        trained: how many trained children it had.
        tried: how many of them were compared with the space of this search.
        fitting: how many of these the space has.
        decisions: those of this search that the received children answer, each once.
        answered: the numbers of the decisions that each child answers. The children are in order of their rewards, the
            best first.
        tokens: their answers.
        rewards: theirs, in the earlier search.
        ranks: theirs among all trained children of the earlier search, above 0 and below 1; the best has the highest.
    """

    name: str
    store: str
    space: str
    task: str
    trained: int
    tried: int
    fitting: int
    decisions: list[dict[str, Any]]
    answered: list[list[int]]
    tokens: list[list[int]]
    rewards: list[float]
    ranks: list[float]


@dataclasses.dataclass(frozen=True)
class EndingCount:
    """The number of trained children with the same ending, and their best reward."""

    why: str | None  # None: trained to their end
    screened: bool
    count: int
    best: float | None


@dataclasses.dataclass(frozen=True)
class FailureCount:
    """The number of children that failed or were lost with the same fault and message."""

    state: str
    fault: str
    message: str | None
    count: int


@dataclasses.dataclass(frozen=True)
class NewChild:
    """A proposed child that is to be stored. The fields are those of `Child`."""

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
    """A worker's attempt to train a child. `started` and `ended` are seconds since 1970, by the database's clock."""

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
    slot: int | None = None  # the worker's place in its pool; None without one, and before 0.2.0


@dataclasses.dataclass(frozen=True)
class RunningAttempt:
    """An attempt in progress. `fence` identifies it among the attempts at this child."""

    child_id: int
    number: int
    fence: int
    device: str
    slot: int | None


@dataclasses.dataclass(frozen=True)
class EndedAttempt:
    """The final attempt of a child. `finished` is in seconds since 1970, by the database's clock."""

    number: int
    fence: int
    finished: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The metrics of one epoch of one attempt. Those of the attempt that delivered are the accepted ones."""

    child_id: int
    fence: int
    epoch: int
    metrics: dict[str, Any]
    at: float


@dataclasses.dataclass(frozen=True)
class Step:
    """One controller step. `blob` is the controller's state after learning from `consumed_batch` (None: the initial
    state); it is None if it was not kept."""

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
    blob: bytes | None  # None: in a file whose name has the row's key and checksum


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a search: numbers of children by state, and whether a stop is requested."""

    trained: int
    ready: int
    running: int
    stop_requested: bool


@dataclasses.dataclass(frozen=True)
class Request:
    """A user's request for a child.

    Attributes:
        made: seconds since 1970, by the database's clock.
        child: the child's number once it is proposed.
        refusal: why the coordinator refused it, or None.
        spec: the spec of its tokens when it was requested; None if unknown.
    """

    id: int
    search_id: int
    tokens: list[int]
    made: float
    child: int | None
    refusal: str | None
    spec: Json = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of a trained child by epoch. `stopped`: the child was stopped early and its reward is a prediction."""

    number: int
    reward: float
    finished: float
    stopped: bool
    values: dict[int, float]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training of a child after the search, with one recipe and one seed."""

    child_id: int
    recipe_hash: str
    seed: int
    recipe: dict[str, Any]
    reward: float
    metrics: dict[str, Any]
    seconds: float
    finished: float
    ending: str | None = None  # as of `Child`


@dataclasses.dataclass(frozen=True)
class Lease:
    """A coordinator's right to write a search. It ends when another coordinator raises the epoch in the search's row.
    `state` and `cause` are those of the search before the lease was taken."""

    search_id: int
    epoch: int
    state: str = dataclasses.field(default=SearchState.PAUSED, compare=False)
    cause: str | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A worker's right to deliver a child. It ends when the fence in the child's row rises."""

    child_id: int
    search_id: int
    number: int
    fence: int
    worker: str
    tokens: tuple[int, ...]
    seed: int
    spec: Json = None  # this and `decisions` as of `Child`
    decisions: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Delivery:
    """How an attempt at a child ended: with a reward, or with a fault and a message.

    Attributes:
        phases: `seconds` by phase.
        stopped_at, ending, screened: as of `Child`.
        weights: packed by `blobs.pack`; `weights_epoch` is the epoch after which they were taken.
    """

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
    """Whether a search may have this name. Folders and files are named after searches."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


class StoreError(Exception):
    """The store cannot fulfil a request. The message is one sentence for the user."""


class StaleLeaseError(StoreError):
    """Another coordinator has taken the search over; nothing was written."""


class LeaseHeldError(StoreError):
    """Another process is the search's coordinator."""


class UnknownSearchError(StoreError):
    """No search of this name is in the store."""


class NameTakenError(StoreError):
    """A search of this name is already in the store."""
