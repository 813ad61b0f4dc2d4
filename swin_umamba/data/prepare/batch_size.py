"""How many patches a batch may have."""

from __future__ import annotations

import math

import torch

# Peak memory of training in 16 bits, measured at batches of 30 and 60 patches of 320x320 for that
# of the three models which takes most: what each pixel of a batch takes, and what the rest does.
BYTES_PER_PIXEL, FIXED_BYTES = 3_700, 1_100_000_000
USABLE = 0.8  # of a GPU's memory
# As nnU-Net: a batch holds this share of the dataset's pixels at most, but two patches at least.
SHARE_OF_DATASET, SMALLEST = 0.05, 2
LARGEST_PIXELS = (
    30 * 320 * 320
)  # of the largest batch that the original implementation trained with
WITHOUT_GPU = 2


def largest_batch(patch_size: tuple[int, int], dataset_pixels: float) -> int:
    """The most patches that make sense in a batch, however large the memory."""
    pixels = min(LARGEST_PIXELS, SHARE_OF_DATASET * dataset_pixels)
    return max(int(pixels / math.prod(patch_size)), SMALLEST)


def propose_batch_size(
    patch_size: tuple[int, int], dataset_pixels: float, memory: int | None
) -> int:
    """Patches in a batch, by an estimate for the main models with mixed precision.

    memory: the GPU's, in bytes; None for none, which proposes 2. Training measures what its own
    model takes: `train.batch_size`.
    """
    if memory is None:
        return WITHOUT_GPU
    fitting = (USABLE * memory - FIXED_BYTES) / BYTES_PER_PIXEL / math.prod(patch_size)
    return max(min(int(fitting), largest_batch(patch_size, dataset_pixels)), SMALLEST)


def gpu_memory() -> int | None:
    """Bytes of this machine's smallest GPU that CUDA can use; None without one."""
    if not torch.cuda.is_available():
        return None
    return min(
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    )
