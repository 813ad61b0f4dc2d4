"""Random numbers by the number of an iteration."""

from __future__ import annotations

import numpy as np
import torch


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Seed torch's global generators, so that what is random in an iteration depends on its number,
    whenever a run resumes."""
    seeds = np.random.SeedSequence((seed, iteration, rank))
    torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
