"""The demo's image and mask, which are part of the stardist wheel on PyPI.

512x512 fluorescence microscopy of 125 nuclei from the 2018 Data Science Bowl (BBBC038, CC0). The
user's pip downloads the wheel, which is read as a zip file and never installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from swin_umamba.common.files import cache_dir, write_bytes
from swin_umamba.errors import UserError

REQUIREMENT = "stardist==0.9.2"
# SHA-256 of the two files, which are the same in all wheels of this version.
FILES = {
    "img2d.tif": "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    "mask2d.tif": "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
}
FOLDER_IN_WHEEL = "stardist/data/images"
# First the wheel for this machine: a local mirror may have no other. Then one from PyPI, for
# platforms and Python versions without a wheel of stardist.
_WHEELS: tuple[tuple[str, ...], ...] = (
    (),
    ("--platform=win_amd64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"),
)
PIP_SECONDS = 180
INSTEAD = (
    "Without a network, use your own image and mask: swin-umamba demo --image IMAGE --mask MASK"
    " (the mask is 0 outside the objects)."
)


def sample_pair() -> tuple[Path, Path]:
    """Paths of the image and the mask, downloaded unless they are in the cache.

    Raises UserError if pip cannot download the wheel or its content is not as expected; the cache
    is then unchanged.
    """
    folder = cache_dir() / REQUIREMENT.replace("==", "-")
    image, mask = (folder / name for name in FILES)
    if not all(_whole(folder / name) for name in FILES):
        with tempfile.TemporaryDirectory(prefix="swin-umamba-") as temporary:
            contents = read_wheel(download_wheel(Path(temporary)))
        for name, content in contents.items():
            write_bytes(folder / name, content)
    return image, mask


def download_wheel(folder: Path) -> Path:
    """Let pip download the wheel into `folder`."""
    answers = []
    for options in _WHEELS:
        answer = _pip_download(folder, options)
        wheels = sorted(folder.glob("*.whl"))
        if wheels:
            return wheels[0]
        answers.append(answer)
    raise UserError(
        f"pip could not fetch {REQUIREMENT}, whose wheel holds the demo's image"
        f" ({answers[0]}). {INSTEAD}"
    )


def _pip_download(folder: Path, options: tuple[str, ...]) -> str:
    """Run pip; returns its last message, in case it downloaded nothing."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--retries=1", "--no-deps", "--only-binary=:all:", f"--dest={folder}"),
        *options,
        REQUIREMENT,
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_SECONDS,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PIP_SECONDS} s"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return said[-1] if said else f"pip ended with status {done.returncode}"


def read_wheel(wheel: Path) -> dict[str, bytes]:
    """The two files in a wheel, by name, with verified hashes."""
    contents = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                contents[name] = archive.read(f"{FOLDER_IN_WHEEL}/{name}")
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise UserError(
            f"the downloaded {wheel.name} is damaged: {error}. Try again, perhaps after"
            f" 'pip cache purge'. {INSTEAD}"
        ) from error
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != FILES[name]:
            raise UserError(
                f"{FOLDER_IN_WHEEL}/{name} in the downloaded {wheel.name} has SHA-256 {found},"
                f" expected {FILES[name]}. {INSTEAD}"
            )
    return contents


def _whole(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == FILES[path.name]
