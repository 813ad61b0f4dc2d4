"""Memory that there is not."""

from __future__ import annotations

_CPU = "DefaultCPUAllocator"  # of which torch raises a plain RuntimeError
_GPU = "OutOfMemoryError"  # torch's own class, known by name where torch is not imported


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, does not suffice."""
    return isinstance(error, MemoryError) or is_out_of_gpu_memory(error) or _CPU in str(error)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether it is that of a GPU."""
    return isinstance(error, RuntimeError) and type(error).__name__ == _GPU
