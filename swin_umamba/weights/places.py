"""Choose the weights file of a folder that contains several."""

from __future__ import annotations

from pathlib import Path

LAST = "model.safetensors"
BEST = "best.safetensors"


def weights_in(folder: Path, checkpoint: str = "best") -> Path | None:
    """A folder's weights: "best" by validation (the last ones if there was no validation), or
    "last".

    None if they do not exist. Raises ValueError for any other word.
    """
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint: got {checkpoint!r}, expected 'best' or 'last'")
    names = (BEST, LAST) if checkpoint == "best" else (LAST,)
    return next((path for name in names if (path := folder / name).is_file()), None)
