"""Recognises the faults of a GPU by the texts with which CUDA, TensorFlow and PyTorch report them."""

from __future__ import annotations

import re

# The GPU has left the machine, or its context can no longer be used: every later child of the process would fail too.
# CUDA names the first error of an asynchronous call, so LAUNCH_FAILED is also what a broken card looks like.
LOST = re.compile(
    r"CUDA_ERROR_(?:NO_DEVICE|INVALID_DEVICE|DEVICE_UNAVAILABLE|DEVICE_NOT_LICENSED|SYSTEM_NOT_READY|LAUNCH_FAILED"
    r"|LAUNCH_TIMEOUT|ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|MISALIGNED_ADDRESS|HARDWARE_STACK_ERROR|CONTAINED"
    r"|ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|MPS_\w+)"
    r"|CUDA error: (?:unspecified launch failure|an illegal memory access|no CUDA-capable device|device not found"
    r"|uncorrectable)"
    r"|no CUDA-capable device is detected"
    r"|(?:GPU|CUDA)[^\n]{0,200}\bdevice not found|\bdevice not found[^\n]{0,200}(?:GPU|CUDA)"
    r"|[Uu]ncorrectable ECC error|NVRM: Xid|\bXid \(PCI:|GPU is lost|GPU has fallen off the bus"
)
FULL = re.compile(
    r"CUDA_ERROR_OUT_OF_MEMORY|CUDA out of memory|CUDA error: out of memory"
    r"|(?:CUDNN|CUBLAS)_STATUS_ALLOC_FAILED"
    r"|[Ff]ailed to allocate[^\n]{0,200}?\b(?:on|from) (?:the )?device\b"
    r"|OOM when allocating tensor[^\n]{0,500}(?:device:GPU:|GPU_\d+_bfc)"
)


class GpuLostError(Exception):
    """A GPU of this process cannot be used any more, through no fault of the child that it trained. The message is a
    phrase."""


def lost_gpu(text: str) -> str | None:
    """The line of a text that reports the loss of a GPU; None if there is none."""
    found = LOST.search(text)
    return None if found is None else _line(text, found)


def is_gpu_full(text: str) -> bool:
    """Whether a text reports that a GPU, not the machine, has no memory left."""
    return FULL.search(text) is not None


def _line(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return text[max(start, found.start() - 150) : len(text) if end < 0 else end].strip()[:300]
