"""The messages between a pool and a worker, as JSON. The name of a message has its version: `ready/1`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeAlias

MAX_SENTENCE = 3_000  # bytes; a message with such a sentence is written to a pipe at once (PIPE_BUF is 4096)


class MessageError(ValueError):
    """This version does not know the message, or the message has wrong fields."""


@dataclasses.dataclass(frozen=True)
class WorkerOrder:
    """The first message to a worker: the search, and how to train its children.

    Attributes:
        store: the URL of the store.
        search_id: the id of the search.
        settings: the settings of the search, from which the worker makes the space and the task.
        epoch: the epoch of the coordinator; the worker claims children only under this epoch.
        keep: the number of best children whose weights are kept.
        threads: processor threads that a child may use.
        early_stop: the name of the pruner, or `none`.
        recycle_after: the number of children after which a fresh worker replaces this one.
        recycle_growth: the growth of memory in bytes after which a fresh worker replaces this one.
        gpu_memory: the memory in MB that TensorFlow may allocate on each GPU of the worker; None for no limit.
        artefacts: the storage of logs and checkpoints (`Artefacts.to_json`).
        worker: the worker's name, unique among all past and present workers of the search.
        slot: the index of its slot in the pool.
        device: the device on which children are trained, for the user.
        num_gpus: the number of GPUs that the worker has.
    """

    name: ClassVar[str] = "order/2"

    store: str
    search_id: int
    settings: Mapping[str, Any]
    epoch: int
    keep: int
    threads: int
    early_stop: str
    recycle_after: int
    recycle_growth: int
    gpu_memory: int | None
    artefacts: Mapping[str, Any]
    worker: str = ""
    slot: int = 0
    device: str = "cpu"
    num_gpus: int = 0

    def to(self, slot: int, generation: int, device: str, num_gpus: int = 0) -> WorkerOrder:
        """The order for one worker, the `generation`-th of its slot."""
        worker = f"{self.epoch}.{slot}.{generation}"
        return dataclasses.replace(self, worker=worker, slot=slot, device=device, num_gpus=num_gpus)


@dataclasses.dataclass(frozen=True)
class Wake:
    """To an idle worker: children are ready to be claimed."""

    name: ClassVar[str] = "wake/1"


@dataclasses.dataclass(frozen=True)
class Ready:
    """From a worker: it has warmed up and claims its first child."""

    name: ClassVar[str] = "ready/1"


@dataclasses.dataclass(frozen=True)
class Delivered:
    """From a worker: it has delivered the child or the population that it ran."""

    name: ClassVar[str] = "delivered/1"


@dataclasses.dataclass(frozen=True)
class WorkerFault:
    """From a worker that claims no more children, through no fault of its child.

    Attributes:
        sentence: describes the fault.
    """

    sentence: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        return cls(_sentence(error))


@dataclasses.dataclass(frozen=True)
class SearchFault(WorkerFault):
    """The search itself is at fault."""

    name: ClassVar[str] = "search-fault/1"


@dataclasses.dataclass(frozen=True)
class GpuLost(WorkerFault):
    """A GPU of the worker's process cannot be used any more."""

    name: ClassVar[str] = "gpu-lost/1"


def _sentence(error: BaseException) -> str:
    """The message of an error in one line, short enough for one piece of a pipe."""
    line = " ".join(str(error).split())
    # JSON may write a character as six bytes, `\\u2026`, so the sentence is cut by its length in JSON.
    while len(json.dumps(line)) > MAX_SENTENCE:
        line = line[: -1 - (len(json.dumps(line)) - MAX_SENTENCE) // 12]
    return line


Message: TypeAlias = WorkerOrder | Wake | Ready | Delivered | SearchFault | GpuLost
MESSAGES: Mapping[str, type[Message]] = {
    kind.name: kind for kind in (WorkerOrder, Wake, Ready, Delivered, SearchFault, GpuLost)
}


def encode(message: Message) -> bytes:
    """The message as one line of JSON."""
    fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    return json.dumps({"message": message.name, **fields}).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """The message of a line that `encode` made. Raises MessageError if there is none."""
    try:
        fields = json.loads(line)
        name = fields.pop("message")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise MessageError(f"{line[:100]!r} is not a message of a worker or a pool.") from None
    if name not in MESSAGES:
        raise MessageError(f"The message {name!r} is unknown; worker and pool must have the same version of automl.")
    try:
        return MESSAGES[name](**fields)
    except TypeError as error:
        raise MessageError(f"The message {name!r} has wrong fields: {error}.") from None
