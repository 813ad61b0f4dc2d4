"""Truncated and changed images of every format: a UserError naming the file, or a successful read.

`HARDENING_ROUNDS=1000 python -m pytest tests/hardening` tries more of the same.
"""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import FILES

from swin_umamba.data import read_labels, read_raw
from swin_umamba.errors import UserError

ROUNDS = int(os.environ.get("HARDENING_ROUNDS", "25"))
HEADER = 600  # leading bytes that contain most of what matters
# Formats whose pixels have a checksum: whatever is read is right.
CHECKED = ("grey.png", "colour.png", "deep.png", "volume.nii.gz", "deflated.nrrd")


def damaged(whole: bytes, seed: int) -> tuple[str, bytes]:
    """How a file was changed, and its bytes."""
    rng, content = random.Random(seed), bytearray(whole)
    kind = rng.choice(("cut", "changed", "header", "header", "inserted", "deleted", "zeroed"))
    at, length = rng.randrange(len(whole)), rng.randrange(1, 40)
    if kind == "cut":
        del content[at:]
    elif kind in ("changed", "header"):
        end = min(HEADER, len(whole)) if kind == "header" else len(whole)
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            content[rng.randrange(end)] = rng.choice((0, 0x7F, 0x80, 255, rng.randrange(256)))
    elif kind == "inserted":
        content[at:at] = rng.randbytes(length)
    elif kind == "deleted":
        del content[at : at + length]
    else:
        content[at : at + length] = bytes(len(content[at : at + length]))
    return kind, bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    whole, pixels = path.read_bytes(), read_raw(path).pixels
    for i in range(ROUNDS):
        kind, content = damaged(whole, seed=zlib.crc32(name.encode()) + i)
        path.write_bytes(content)
        for read in (read_raw, read_labels):
            try:
                found = read(path)
            except UserError as error:
                if name in str(error) and "\n" not in str(error):
                    continue
                raise
            if read is read_raw and (kind == "cut" or name in CHECKED):
                np.testing.assert_array_equal(found.pixels, pixels)  # type: ignore[union-attr]


def test_seeds_reach_every_kind_of_damage() -> None:
    kinds = {damaged(bytes(1000), seed)[0] for seed in range(ROUNDS)}
    assert kinds == {"cut", "changed", "header", "inserted", "deleted", "zeroed"}
