"""What Pillow ignores in PNG files: the checksums of the pixels, and their bit depth."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHECKED = (b"IHDR", b"PLTE", b"IDAT", b"tRNS")  # chunks that define the pixels
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples per pixel, by PNG color type
_BLOCK = 1 << 20  # bytes


def checked_header(path: Path) -> tuple[int, int]:
    """Bits per sample and samples per pixel, after verifying all pixel checksums.

    Raises ValueError, struct.error or KeyError for damage.
    """
    bits, samples = 0, 0
    with path.open("rb") as file:
        file.seek(len(_SIGNATURE))
        while start := file.read(8):
            length, kind = struct.unpack(">I4s", start)
            if kind == b"IEND":
                break
            if kind not in _CHECKED:
                file.seek(length + 4, 1)
                continue
            check, left, content = zlib.crc32(kind), length, b""
            while left and (content := file.read(min(left, _BLOCK))):
                check, left = zlib.crc32(content, check), left - len(content)
            if left or struct.unpack(">I", file.read(4)) != (check,):
                raise ValueError(f"the checksum of its chunk {kind.decode()} is wrong")
            if kind == b"IHDR":
                bits, samples = content[8], _SAMPLES[content[9]]
    return bits, samples
