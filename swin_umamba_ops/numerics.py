"""The numeric conventions shared by all backends."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FLOAT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states and sums for inputs of `dtype`: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    """t.to(dtype), skipped if t already has it: an eager call has many of these."""
    return t if t.dtype == dtype else t.to(dtype)


def softplus(raw: Tensor) -> Tensor:
    """log(1 + exp(raw)), accurate to the last digit also in float64.

    torch switches to the identity above 20, where float64 still resolves the difference; at 40 it
    no longer does, and exp(40) is far from overflowing even in float32.
    """
    return F.softplus(raw, threshold=40.0)


# What instance_norm_act adds before its activation.
NO_RESIDUAL, PLAIN_RESIDUAL, NORMALISED_RESIDUAL = 0, 1, 2
