"""Which file of weights is meant where a folder holds several."""

from __future__ import annotations

from pathlib import Path

LAST = "model.safetensors"
BEST = "best.safetensors"


def weights_in(folder: Path, checkpoint: str = "best") -> Path | None:
    """A folder's weights: "best" by validation, or the last where none was validated; "last".

    None if they are not there. Raises ValueError for another word.
    """
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint: got {checkpoint!r}, expected 'best' or 'last'")
    names = (BEST, LAST) if checkpoint == "best" else (LAST,)
    return next((path for name in names if (path := folder / name).is_file()), None)
