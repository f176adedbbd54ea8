"""The GPUs that children may use: `nvidia-smi` lists those of the machine, CUDA_VISIBLE_DEVICES chooses among them."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Sequence

from automl.child_trainers.other_programs import Answer, NoAnswerError, ask

# Without persistence mode, the driver initializes every GPU when nvidia-smi is called, which takes seconds for each.
SMI_SECONDS = 30.0
FIELDS = ("index", "uuid", "name", "memory.total", "driver_version", "compute_cap")
CARD_LINE = re.compile(r"GPU (?P<index>\d+): ")
SLICE_LINE = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+(?P<index>\d+): \(UUID: (?P<uuid>MIG-[^)\s]+)\)")
DEVICE = re.compile(r"\d+|(?:GPU|MIG)-\S+")  # the names of a device in CUDA_VISIBLE_DEVICES
# A profile's name rounds the memory of a slice up (1g.18gb has 16 GiB, which are 17.2 GB), so a twentieth is left out.
PROFILE_SHARE = 0.95


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU, or one slice of a GPU in MIG mode, which CUDA takes for a GPU.

    Attributes:
        value: the name in CUDA_VISIBLE_DEVICES: an index, a UUID or the beginning of one.
        label: the name for the user: its index, `0:1` for slice 1 of GPU 0, else `value`.
        name: the product's name; None if it is not known, like the attributes below.
        memory: in MB of 2**20 bytes.
        capability: the compute capability, such as (8, 0).
        driver: the version of the driver.
        uuid: the whole UUID.
        is_slice: whether it is a slice. A process sees one slice at most.
    """

    value: str
    label: str
    name: str | None = None
    memory: int | None = None
    capability: tuple[int, int] | None = None
    driver: str | None = None
    uuid: str | None = None
    is_slice: bool = False

    @property
    def title(self) -> str:
        """The product's name, or the label if that is not known, for a sentence."""
        return f"GPU {self.label}" if self.name is None else f"GPU {self.label} ({self.name})"


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU with its devices: itself, or its slices in MIG mode."""

    gpu: Gpu
    slices: tuple[Gpu, ...] = ()

    @property
    def devices(self) -> tuple[Gpu, ...]:
        return self.slices or (self.gpu,)


@dataclasses.dataclass(frozen=True)
class Listing:
    """The answer of `nvidia-smi`.

    Attributes:
        cards: the GPUs of this machine.
        installed: whether there is such a program.
        failure: why it lists no GPU, a phrase; None if it lists some.
    """

    cards: tuple[Card, ...] = ()
    installed: bool = True
    failure: str | None = None


@functools.cache  # read once: it takes up to a second
def listed_gpus() -> Listing:
    """The GPUs of this machine. A `nvidia-smi` that hangs, fails or prints something else lists none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Listing(installed=False, failure="nvidia-smi is not installed")
    try:
        answer = _query(program, FIELDS)
        if answer.code and "compute_cap" in answer.output + answer.errors:  # a driver of 2021 or before
            answer = _query(program, FIELDS[:-1])
        gpus = _parsed(answer.output)
        if answer.code or not gpus:
            return Listing(failure=f"nvidia-smi lists no GPU: {answer.first_line}")
        slices = ask([program, "-L"], seconds=SMI_SECONDS)
    except NoAnswerError as error:
        return Listing(failure=f"nvidia-smi lists no GPU: {error}")
    return Listing(tuple(Card(gpu, _slices(gpu, slices.output)) for gpu in gpus))


@functools.cache  # read once: later the coordinator hides the GPUs from its own process
def _visible_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs, and why `nvidia-smi`, if it is installed and was asked, lists none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    listing = listed_gpus() if chosen is None or DEVICE.match(chosen.strip()) else Listing()
    failure = listing.failure if listing.installed else None
    if chosen is None:
        return tuple(device for card in listing.cards for device in card.devices), failure
    gpus: list[Gpu] = []
    for token in map(str.strip, chosen.split(",")):
        found = _found(token, listing)
        # CUDA ignores an unknown device and all that follow it.
        if not found or {gpu.value for gpu in found} & {gpu.value for gpu in gpus}:
            break
        gpus += found
    return tuple(gpus), failure


def visible_gpus() -> list[Gpu]:
    """The GPUs that children may use: those of CUDA_VISIBLE_DEVICES, else those that `nvidia-smi` lists."""
    return list(_visible_gpus()[0])


def gpu_failure() -> str | None:
    """Why there are no GPUs on a machine with `nvidia-smi`, a phrase; None if there are some, or if nobody asked for
    them (CUDA_VISIBLE_DEVICES)."""
    return _visible_gpus()[1]


def forget_gpus() -> None:
    """Makes the next call of `visible_gpus` or `listed_gpus` read them again, after the environment has changed."""
    listed_gpus.cache_clear()
    _visible_gpus.cache_clear()


def gpu_groups(gpus: Sequence[Gpu], size: int) -> list[str]:
    """Groups of `size` GPUs, one per child, as values for CUDA_VISIBLE_DEVICES. The remaining GPUs are not used."""
    values = [gpu.value for gpu in gpus]
    return [",".join(values[start : start + size]) for start in range(0, len(values) - size + 1, size)]


def device_label(value: str) -> str:
    """The name for the user of the device with this value of CUDA_VISIBLE_DEVICES."""
    labels = {gpu.value: gpu.label for gpu in visible_gpus()}
    return f"gpu {','.join(labels.get(one, one) for one in value.split(','))}"


def used_memory(gpus: Sequence[Gpu]) -> dict[str, int]:
    """The memory in MB that processes hold on each of these GPUs now, by its UUID; only for whole GPUs, and only as far
    as it is known."""
    wanted = {gpu.uuid for gpu in gpus if gpu.uuid is not None and not gpu.is_slice}
    program = shutil.which("nvidia-smi")
    if program is None or not wanted:
        return {}
    try:
        answer = _query(program, ("uuid", "memory.used"))
    except NoAnswerError:
        return {}
    rows = [[part.strip() for part in line.split(",")] for line in answer.output.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[0] in wanted and row[1].isdecimal()}


def _query(program: str, fields: Sequence[str]) -> Answer:
    return ask([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], seconds=SMI_SECONDS)


def _parsed(text: str) -> list[Gpu]:
    """The GPUs of an answer in the order of `FIELDS`; other lines are left out."""
    gpus = []
    for line in text.splitlines():
        index, uuid, name, memory, driver, *capability = [part.strip() for part in line.split(",")] + [""] * 5
        if not index.isdecimal() or not uuid.startswith("GPU-"):
            continue
        major, _, minor = capability[0].partition(".")
        gpus.append(
            Gpu(
                # By the UUID, because CUDA counts GPUs in another order than nvidia-smi if they differ.
                value=uuid,
                label=index,
                name=name or None,
                memory=int(memory) if memory.isdecimal() else None,
                capability=(int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None,
                driver=driver or None,
                uuid=uuid,
            )
        )
    return gpus


def _slices(gpu: Gpu, text: str) -> tuple[Gpu, ...]:
    """The slices of a GPU in the answer of `nvidia-smi -L`, which lists them below their GPU."""
    slices = []
    card = None
    for line in text.splitlines():
        if (card_line := CARD_LINE.match(line)) is not None:
            card = card_line["index"]
        found = SLICE_LINE.match(line)
        if found is None or card != gpu.label:
            continue
        gigabytes = re.search(r"(\d+)gb", found["profile"])
        slices.append(
            dataclasses.replace(
                gpu,
                value=found["uuid"],
                label=f"{gpu.label}:{found['index']}",
                name=f"{gpu.name} MIG {found['profile']}",
                memory=None if gigabytes is None else int(PROFILE_SHARE * int(gigabytes[1]) * 10**9 / 2**20),
                uuid=found["uuid"],
                is_slice=True,
            )
        )
    return tuple(slices)


def _found(token: str, listing: Listing) -> tuple[Gpu, ...]:
    """The devices of one name in CUDA_VISIBLE_DEVICES; none if there is no such device."""
    if not DEVICE.fullmatch(token):
        return ()
    if not listing.installed:  # a container may have the driver's library without this program
        return (Gpu(token, token),)
    if token.isdecimal():
        cards = [card for card in listing.cards if int(card.gpu.label) == int(token)]
        alike = len({card.gpu.name for card in listing.cards}) == 1
        if cards and not alike and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            return (_least(token, [card.gpu for card in listing.cards]),)
    elif token.startswith("MIG-"):
        slices = [device for card in listing.cards for device in card.slices if device.value.startswith(token)]
        return tuple(dataclasses.replace(device, value=token) for device in slices) if len(slices) == 1 else ()
    else:
        cards = [card for card in listing.cards if card.gpu.value.startswith(token)]
    if len(cards) != 1:
        return ()
    return cards[0].slices or (dataclasses.replace(cards[0].gpu, value=token),)


def _least(token: str, gpus: Sequence[Gpu]) -> Gpu:
    """A GPU by its index among different ones. CUDA counts the fastest first, so only what all have is known."""
    memories = [gpu.memory for gpu in gpus]
    capabilities = [gpu.capability for gpu in gpus]
    return Gpu(
        token,
        token,
        memory=None if None in memories else min(memory for memory in memories if memory is not None),
        capability=None if None in capabilities else min(one for one in capabilities if one is not None),
        driver=gpus[0].driver,
    )
