"""Recognize out-of-memory errors."""

from __future__ import annotations

_CPU = "DefaultCPUAllocator"  # named in the message of torch's plain RuntimeErrors
_GPU = "OutOfMemoryError"  # torch's own class, known by name so that torch need not be imported


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine or a GPU is out of memory."""
    return isinstance(error, MemoryError) or is_out_of_gpu_memory(error) or _CPU in str(error)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether it is a GPU that is out of memory."""
    return isinstance(error, RuntimeError) and type(error).__name__ == _GPU
