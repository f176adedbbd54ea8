"""The published peak of processors for training: dense matrix products in bfloat16, or in float16 before Ampere."""

from __future__ import annotations

# TFLOP/s by a part of the name that the driver reports. Source: the data sheet of each card, "Tensor Core", without
# sparsity; the larger variant where a data sheet has several. A longer name comes before one that it contains.
PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H800": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "V100": 125.0,
    "T4": 65.0,
}


def published_peak(card: str) -> float | None:
    """The peak of a card in FLOP/s; None if it is not known.

    Args:
        card: its name, as the driver reports it, such as "NVIDIA H200".
    """
    words = card.replace("-", " ").split()
    for name, tflops in PEAK_TFLOPS.items():
        parts = name.split()
        if any(words[first : first + len(parts)] == parts for first in range(len(words))):
            return tflops * 1e12
    return None
