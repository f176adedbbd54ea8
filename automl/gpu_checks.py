"""Checks the GPUs for `automl doctor`: what `nvidia-smi` lists, what TensorFlow sees of it, and NVIDIA MPS."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from automl.child_trainers.gpus import Gpu, Listing, listed_gpus, visible_gpus
from automl.child_trainers.other_programs import NoAnswerError, ask
from automl.child_trainers.workers.mps import CONTROL, running_mps
from automl.findings import Finding
from automl.wording import counted

IMPORT_SECONDS = 120.0  # for a slow disk; it takes about five seconds
# The oldest driver for each major version of CUDA. Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility".
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
WITH_CUDA = "pip install 'tensorflow[and-cuda]'"
DRIVER_FILE = Path("/proc/driver/nvidia/version")
# Runs in its own process: its import takes seconds, and it may abort.
LOOK = """
import json
import tensorflow as tf
details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
build = tf.sysconfig.get_build_info()
print(json.dumps({
    "gpus": [[one.get("device_name"), one.get("compute_capability")] for one in details],
    "cuda_build": bool(build.get("is_cuda_build")), "cuda": build.get("cuda_version"),
    "cudnn": build.get("cudnn_version"),
}))
"""


@dataclasses.dataclass(frozen=True)
class TensorFlowLook:
    """What TensorFlow says about GPUs.

    Attributes:
        gpus: the names and compute capabilities of those that it sees; None for what it does not know.
        cuda_build: whether it was built with CUDA.
        cuda, cudnn: the versions for which it was built.
        log: what it printed meanwhile.
    """

    gpus: Sequence[tuple[str | None, Sequence[int] | None]] = ()
    cuda_build: bool = True
    cuda: str | None = None
    cudnn: str | None = None
    log: str = ""


def gpu_findings() -> list[Finding]:
    """The findings about GPUs; none on a machine without a sign of an NVIDIA GPU, where TensorFlow is not imported."""
    listing, gpus = listed_gpus(), visible_gpus()
    if not (listing.installed or gpus or DRIVER_FILE.exists()):
        return []
    return [_listing_finding(listing, gpus), _looked_at(listing, gpus), _mps_finding()]


def _listing_finding(listing: Listing, gpus: Sequence[Gpu]) -> Finding:
    subject = "nvidia-smi"
    if not listing.installed:
        advice = "install it with the driver; until then, name the GPUs of a search in CUDA_VISIBLE_DEVICES"
        return Finding(subject, False, "it is not installed", advice)
    if listing.failure is not None:
        return Finding(subject, False, listing.failure, "install the NVIDIA driver again, or restart the machine")
    devices = [device for card in listing.cards for device in card.devices]
    text = "; ".join(_gpu_text(device) for device in devices)
    driver = devices[0].driver or "unknown"
    found = f"{counted(len(devices), 'GPU')}: {text}; driver {driver}"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        found += f"; CUDA_VISIBLE_DEVICES={chosen} leaves {counted(len(gpus), 'GPU')}"
        if chosen.strip() and not chosen.startswith("-") and not gpus:
            return Finding(subject, False, found, "name GPUs that there are, by their index or UUID")
    return Finding(subject, True, found)


def _gpu_text(gpu: Gpu) -> str:
    memory = "unknown memory" if gpu.memory is None else f"{gpu.memory:,} MB"
    capability = _capability_text(gpu.capability)
    return f"{gpu.label} {gpu.name or 'of unknown name'}, {memory}, compute capability {capability}"


def _capability_text(capability: Sequence[int] | None) -> str:
    return "unknown" if capability is None else ".".join(map(str, capability))


def _looked_at(listing: Listing, gpus: Sequence[Gpu]) -> Finding:
    look = look_at_tensorflow()
    return look if isinstance(look, Finding) else tensorflow_finding(look, listing, gpus)


def look_at_tensorflow() -> TensorFlowLook | Finding:
    """Asks TensorFlow in its own process. A finding if it cannot be imported."""
    try:
        answer = ask(
            [sys.executable, "-P", "-c", LOOK],
            seconds=IMPORT_SECONDS,
            environment={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
        )
    except NoAnswerError as error:
        return Finding("tensorflow", False, f"importing it fails: {error}", f"install it again: {WITH_CUDA}")
    try:
        told: Mapping[str, Any] = json.loads(answer.output.strip().rpartition("\n")[2])
        gpus = tuple((name, capability) for name, capability in told["gpus"])
        return TensorFlowLook(gpus, told["cuda_build"], told["cuda"], told["cudnn"], answer.errors)
    except (ValueError, TypeError, KeyError):
        lines = answer.errors.strip().splitlines() or [f"exit code {answer.code}"]
        found = f"importing it fails: {lines[-1][:200]}"
        return Finding("tensorflow", False, found, f"install it again: {WITH_CUDA}")


def tensorflow_finding(look: TensorFlowLook, listing: Listing, gpus: Sequence[Gpu]) -> Finding:
    """Compares what TensorFlow sees with the GPUs that a search would use.

    Args:
        gpus: those that a search would use.
    """
    subject = "tensorflow"
    built = f"built for CUDA {look.cuda} and cuDNN {look.cudnn}" if look.cuda_build else "built without CUDA"
    seen = f"{counted(len(look.gpus), 'GPU')}" if look.gpus else "no GPU"
    names = ", ".join(
        f"{name or 'of unknown name'} (compute capability {_capability_text(capability)})"
        for name, capability in look.gpus
    )
    found = f"it is {built}, and sees {seen}{f': {names}' if names else ''}"
    # CUDA shows a process one slice at most, and the workers see one GPU each.
    expected = min(1, len(gpus)) if any(gpu.is_slice for gpu in gpus) else len(gpus)
    if len(look.gpus) >= expected:
        return Finding(subject, True, found)
    more = f"{'nvidia-smi lists' if listing.cards else 'CUDA_VISIBLE_DEVICES names'} {counted(len(gpus), 'GPU')}"
    return Finding(subject, False, f"{more}, but {found}", _advice(look, listing))


def _advice(look: TensorFlowLook, listing: Listing) -> str:
    if not look.cuda_build:
        return f"install TensorFlow with CUDA: {WITH_CUDA}"
    cuda = _major(look.cuda)
    oldest = OLDEST_DRIVERS.get(cuda or 0)
    driver = next((card.gpu.driver for card in listing.cards), None)
    installed = _major(driver)
    if oldest is not None and installed is not None and installed < oldest:
        return (
            f"update the driver: CUDA {look.cuda} needs version {oldest} or newer, and {driver} is installed; or "
            "install an earlier TensorFlow"
        )
    if "Cannot dlopen some GPU libraries" in look.log:
        missing = sorted(set(_libraries(look.log)))
        names = f" ({', '.join(missing)})" if missing else ""
        return f"its CUDA libraries cannot be loaded{names}; install them: {WITH_CUDA}"
    complaint = next((line for line in look.log.splitlines() if "cuInit" in line or "CUDA error" in line), None)
    if complaint is not None:
        return f"TensorFlow says: {complaint.partition('] ')[2] or complaint}; restart the machine if it goes on"
    return f"install TensorFlow's CUDA libraries: {WITH_CUDA}"


def _libraries(log: str) -> Iterator[str]:
    for line in log.splitlines():
        if "Could not load dynamic library" in line and line.count("'") >= 2:
            yield line.split("'")[1]


def _major(version: str | None) -> int | None:
    text = (version or "").partition(".")[0]
    return int(text) if text.isdecimal() else None


def _mps_finding() -> Finding:
    subject = "mps"
    if shutil.which(CONTROL) is None:
        return Finding(subject, True, "NVIDIA MPS is not installed, so workers that share a GPU take turns on it")
    folder = running_mps()
    if folder is not None:
        return Finding(subject, True, f"NVIDIA MPS runs in {folder}; searches use it")
    return Finding(subject, True, "NVIDIA MPS is installed; a search whose workers share a GPU starts it")
