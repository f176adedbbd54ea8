"""How TensorFlow uses the devices of this machine, and the environment that ties a process to one device before it
imports TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from automl.child_trainers.gpus import Gpu, visible_gpus

# The beginning of a line of TensorFlow's native log: its level and its source file.
NATIVE_LINE = re.compile(
    rb"(?:(?P<level>[IWEF])\d{4} [\d:.]+ +\d+ |\d{4}-\d\d-\d\d [\d:.]+: (?P<older>[IWEF]) )(?P<source>\S+):\d+\] "
)
NATIVE_HEADINGS = (b"WARNING: All log messages before absl::InitializeLog", b"To enable the following instructions: ")
PRECISIONS = ("float32", "bfloat16", "float16")
# The compute capability (Ampere) from which tensor cores multiply bfloat16. Earlier GPUs convert to float32 and back,
# so bfloat16 costs them time and precision.
BFLOAT16_CAPABILITY = (8, 0)


@dataclasses.dataclass(frozen=True)
class Compute:
    """How children are trained.

    Attributes:
        precision: one of `PRECISIONS`.
        xla: whether XLA compiles the training steps; None if each child decides by its expected length.
        devices: the number of GPUs that train one child.
    """

    precision: str = "float32"
    xla: bool | None = False
    devices: int = 1


FLOAT32 = Compute()


def default_precision(gpus: Sequence[Gpu]) -> str:
    """bfloat16 where it is faster than float32: on GPUs from `BFLOAT16_CAPABILITY` on, and on processors with bfloat16
    instructions, where convolutions take half the time.

    Args:
        gpus: on which children are trained; if empty, they are trained on the processor.
    """
    if gpus:
        newer = all(gpu.capability is not None and gpu.capability >= BFLOAT16_CAPABILITY for gpu in gpus)
        return "bfloat16" if newer else "float32"
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        if "avx512_bf16" in flags or "amx_bf16" in flags:
            return "bfloat16"
    return "float32"


def limit_gpu_memory(megabytes: int) -> None:
    """Limits what TensorFlow allocates on each GPU of this process. Call it before TensorFlow uses a GPU."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=megabytes)
        tf.config.set_logical_device_configuration(gpu, [limit])


def trains_on_gpu() -> bool:
    """Whether TensorFlow uses a GPU in this process."""
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def gpu_memory() -> int | None:
    """The memory in bytes that TensorFlow may use on each GPU of this process; None if it is not known."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    limits = [
        device.memory_limit
        for gpu in gpus
        for device in tf.config.get_logical_device_configuration(gpu) or ()
        if device.memory_limit is not None
    ]
    if not limits and gpus:
        limits = [gpu.memory for gpu in visible_gpus() if gpu.memory is not None]
    return 2**20 * min(limits) if limits else None


def num_cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def default_workers() -> int:
    """The number of workers on a machine without GPUs: one for every two processor cores that this process may use."""
    return max(1, num_cores() // 2)


def memory_share(workers: int) -> int | None:
    """The memory in bytes that each of `workers` workers may use, so that together they use at most nine tenths of the
    machine's memory; None if that is not known. The limit of a control group counts as the machine's memory."""
    limits = []
    with contextlib.suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # the file contains "max" if there is no limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return int(0.9 * min(limits)) // workers if limits else None


def environment(threads: int, gpu: str | None) -> dict[str, str]:
    """Variables under which TensorFlow trains a child the same way every time on one kind of machine.

    Args:
        threads: processor threads, both within one operation and for parallel operations.
        gpu: the visible GPU, or None for no GPU. TensorFlow allocates its memory as needed, not all at once.
    """
    return {
        "CUDA_VISIBLE_DEVICES": "-1" if gpu is None else gpu,
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "TF_DETERMINISTIC_OPS": "1",
        # With oneDNN, convolutions take half the time even on processors for which TensorFlow leaves it off.
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    }


@contextlib.contextmanager
def quiet_native_start() -> Iterator[None]:
    """Hides the output of TensorFlow's native code while it is imported and first used: this code prints before its log
    level applies. Errors are exceptions and are not hidden."""
    with open(os.devnull, "w") as null, _stderr_redirected(null.fileno()):
        yield


@contextlib.contextmanager
def without_native_lines() -> Iterator[None]:
    """Like `quiet_native_start`, for the user's code, which may import TensorFlow. It hides only the lines that
    TensorFlow prints on every start, and prints all other lines at the end. With TF_CPP_MIN_LOG_LEVEL=0 it hides
    nothing."""
    try:
        os.fstat(2)
    except OSError:  # standard error is closed, so the temporary file would take its descriptor
        yield
        return
    with tempfile.TemporaryFile() as printed:
        try:
            with _stderr_redirected(printed.fileno()):
                yield
        finally:
            printed.seek(0)
            for line in printed:
                if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0" or not _is_start_line(line):
                    os.write(2, line)


@contextlib.contextmanager
def _stderr_redirected(descriptor: int) -> Iterator[None]:
    """Redirects standard error to another file, for native code too. Does nothing if standard error is closed."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def _is_start_line(line: bytes) -> bool:
    """Whether TensorFlow's native code prints this line on every start: an info message, a warning, or the error that
    there is no GPU."""
    if line.startswith(NATIVE_HEADINGS):
        return True
    native = NATIVE_LINE.match(line)
    if native is None:
        return False
    level = native["level"] or native["older"]
    return level in (b"I", b"W") or (level == b"E" and b"cuda" in native["source"] and not visible_gpus())


def start_tensorflow() -> None:
    """Imports and uses TensorFlow once, to hide the lines that it would print when the user's code uses it first."""
    with quiet_native_start():
        import tensorflow as tf

        tf.constant(0)
