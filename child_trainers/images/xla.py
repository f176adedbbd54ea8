"""Whether XLA makes the training of a network shorter on a GPU, with the time to compile it counted."""

from __future__ import annotations

# Measured on an H200: a network of 20 layers of 48 filters, at batch 512.
FLOPS_WITHOUT = 26.6e12  # a second
FLOPS_WITH = 90.4e12
COMPILE_SECONDS = 10.0  # small networks take four
MARGIN = 2.0  # the time that XLA must save, in times to compile: its gain is smaller on other networks


def pays(flops: int, images: int) -> bool:
    """Whether XLA saves more time in training than it takes to compile.

    Args:
        flops: of the forward pass of one image.
        images: that training reads, over all epochs.
    """
    training = 3.0 * flops * images  # the backward pass has twice the FLOPs of the forward pass
    return training / FLOPS_WITHOUT - training / FLOPS_WITH > MARGIN * COMPILE_SECONDS
