"""Random seeds derived from the iteration number."""

from __future__ import annotations

import numpy as np
import torch


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Seed torch's global generators, so that randomness depends on the iteration alone, even if a
    run is resumed."""
    seeds = np.random.SeedSequence((seed, iteration, rank))
    torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
