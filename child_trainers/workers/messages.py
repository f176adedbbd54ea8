"""What a pool and a worker tell each other, as JSON. A message is named with its version: `ready/1`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

LONGEST_SENTENCE = 3_000  # bytes: a message with it is written to a pipe in one piece (PIPE_BUF is 4096)


class MessageError(ValueError):
    """A message that this version does not know, or that has other fields than it must have."""


@dataclasses.dataclass(frozen=True)
class WorkerOrder:
    """What a worker is told when it starts.

    Attributes:
        store: its address.
        settings: of the search, from which the worker makes the space and the task.
        epoch: of the coordinator that it serves; under another it claims nothing.
        keep: for how many of the best children weights are kept.
        threads: of the processor that a child may use.
        early_stop: the pruner that stops children, or `none`.
        recycle_after, recycle_growth: children, and bytes of growth, after which it makes room for a fresh worker.
        gpu_share: the part of a GPU's memory that it may take.
        artefacts: where logs and checkpoints are (`Artefacts.to_json`).
        worker: its name, unique among all workers of the search, past and present.
        slot: the place in the pool that it fills; others filled it before.
        device: what children are trained on, for the user.
    """

    name: ClassVar[str] = "order/1"

    store: str
    search_id: int
    settings: Mapping[str, Any]
    epoch: int
    keep: int
    threads: int
    early_stop: str
    recycle_after: int
    recycle_growth: int
    gpu_share: float
    artefacts: Mapping[str, Any]
    worker: str = ""
    slot: int = 0
    device: str = "cpu"

    def to(self, slot: int, generation: int, device: str) -> WorkerOrder:
        """The order of one worker: the `generation`-th of its slot."""
        worker = f"{self.epoch}.{slot}.{generation}"
        return dataclasses.replace(self, worker=worker, slot=slot, device=device)


@dataclasses.dataclass(frozen=True)
class Wake:
    """To an idle worker: children are ready."""

    name: ClassVar[str] = "wake/1"


@dataclasses.dataclass(frozen=True)
class Ready:
    """From a worker: it has warmed up, and claims its first child."""

    name: ClassVar[str] = "ready/1"


@dataclasses.dataclass(frozen=True)
class Delivered:
    """From a worker: it has delivered all children that it ran."""

    name: ClassVar[str] = "delivered/1"


@dataclasses.dataclass(frozen=True)
class SearchFault:
    """From a worker: the search itself is at fault, not its child. It claims nothing more."""

    name: ClassVar[str] = "search-fault/1"

    sentence: str

    @classmethod
    def of(cls, error: BaseException) -> SearchFault:
        line = " ".join(str(error).split())
        # JSON may write a character as six bytes, `\\u2026`; a sentence is cut so that the message stays one piece.
        while len(json.dumps(line)) > LONGEST_SENTENCE:
            line = line[: -1 - (len(json.dumps(line)) - LONGEST_SENTENCE) // 12]
        return cls(line)


Message: TypeAlias = WorkerOrder | Wake | Ready | Delivered | SearchFault
MESSAGES: Mapping[str, type[Message]] = {kind.name: kind for kind in (WorkerOrder, Wake, Ready, Delivered, SearchFault)}


def encode(message: Message) -> bytes:
    """The message as one line of JSON."""
    fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    return json.dumps({"message": message.name, **fields}).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """The message of a line. Raises MessageError."""
    try:
        fields = json.loads(line)
        name = fields.pop("message")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise MessageError(f"{line[:100]!r} is no message of a worker or a pool.") from None
    if name not in MESSAGES:
        raise MessageError(f"The message {name!r} is not known here; worker and pool must be of one version of automl.")
    try:
        return MESSAGES[name](**fields)
    except TypeError as error:
        raise MessageError(f"The message {name!r} has other fields than it must have: {error}.") from None
