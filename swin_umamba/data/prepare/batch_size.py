"""Estimate the largest batch size."""

from __future__ import annotations

import math

import torch

# Peak memory of 16-bit training, measured with batches of 30 and 60 patches of 320x320 for the
# model of the three that needs most: bytes per pixel of a batch, and the constant part.
BYTES_PER_PIXEL, FIXED_BYTES = 3_700, 1_100_000_000
USABLE = 0.8  # fraction of a GPU's memory
# As in nnU-Net: a batch contains at most this fraction of the dataset's pixels, but at least two
# patches.
SHARE_OF_DATASET, SMALLEST = 0.05, 2
LARGEST_PIXELS = (
    30 * 320 * 320
)  # pixels of the largest batch in the original implementation's trainings
WITHOUT_GPU = 2


def largest_batch(patch_size: tuple[int, int], dataset_pixels: float) -> int:
    """The largest sensible batch, regardless of memory."""
    pixels = min(LARGEST_PIXELS, SHARE_OF_DATASET * dataset_pixels)
    return max(int(pixels / math.prod(patch_size)), SMALLEST)


def propose_batch_size(
    patch_size: tuple[int, int], dataset_pixels: float, memory: int | None
) -> int:
    """Batch size by an estimate for the main models with mixed precision.

    memory: of the GPU, in bytes; None without a GPU, for which 2 is proposed. Training itself
    measures its own model: `train.batch_size`.
    """
    if memory is None:
        return WITHOUT_GPU
    fitting = (USABLE * memory - FIXED_BYTES) / BYTES_PER_PIXEL / math.prod(patch_size)
    return max(min(int(fitting), largest_batch(patch_size, dataset_pixels)), SMALLEST)


def gpu_memory() -> int | None:
    """Memory in bytes of the smallest GPU that CUDA can use; None without one."""
    if not torch.cuda.is_available():
        return None
    return min(
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    )
