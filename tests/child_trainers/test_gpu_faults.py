"""Faults of a GPU, by the texts of real errors of TensorFlow, XLA, CUDA and PyTorch."""

import pytest

from automl.child_trainers.gpu_faults import is_gpu_full, lost_gpu
from automl.child_trainers.outcome import fault_of
from automl.db.records import Fault


class ResourceExhaustedError(Exception):
    """Called as TensorFlow's."""


class InternalError(Exception):
    pass


OF_CPU = "OOM when allocating tensor with shape[64,1024] and type float on /job:localhost/device:CPU:0 by allocator cpu"
OF_GPU = OF_CPU.replace("CPU:0 by allocator cpu", "GPU:0 by allocator GPU_0_bfc")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ResourceExhaustedError(OF_GPU), Fault.GPU_OOM),
        (ResourceExhaustedError(OF_CPU), Fault.OOM),
        (MemoryError("Unable to allocate 8.00 GiB"), Fault.OOM),
        (
            InternalError("failed to allocate 2.00GiB from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
            Fault.GPU_OOM,
        ),
        (InternalError("Failed to allocate 4096 bytes on device 0"), Fault.GPU_OOM),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), Fault.GPU_OOM),
        (InternalError("CUBLAS_STATUS_ALLOC_FAILED"), Fault.GPU_OOM),
        (InternalError("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"), Fault.NODE_LOST),
        (InternalError("cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"), Fault.NODE_LOST),
        (InternalError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"), Fault.NODE_LOST),
        (InternalError("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered"), Fault.NODE_LOST),
        (InternalError("CUDA_ERROR_MPS_RPC_FAILURE: MPS client failed"), Fault.NODE_LOST),
        (RuntimeError("NVRM: Xid (PCI:0000:c1:00): 79, GPU has fallen off the bus."), Fault.NODE_LOST),
        (RuntimeError("CUDA error: device not found"), Fault.NODE_LOST),
        (RuntimeError("GPU:0: device not found"), Fault.NODE_LOST),
        (RuntimeError("the audio device not found"), Fault.RAISED),
        (ValueError("on purpose"), Fault.RAISED),
        (InternalError("CUDA_ERROR_INVALID_VALUE: invalid argument"), Fault.RAISED),
        (OSError("failed to allocate a pty"), Fault.RAISED),
    ],
    ids=lambda value: str(value)[:40],
)
def test_faults_of_a_gpu(error, fault):
    assert fault_of(error) is fault


def test_the_line_that_tells():
    log = "Epoch 1\nF cuda.cc:12] Failed: CUDA_ERROR_NO_DEVICE: none\nAborted\n"
    assert lost_gpu(log) == "F cuda.cc:12] Failed: CUDA_ERROR_NO_DEVICE: none"
    assert lost_gpu("x" * 10_000 + "CUDA_ERROR_NO_DEVICE" + "y" * 10_000).startswith("x" * 150 + "CUDA")
    assert lost_gpu("Epoch 1\n") is None and not is_gpu_full("Epoch 1\n")
