"""The demo's image and mask: one real pair that the stardist wheel on PyPI carries.

512x512 fluorescence microscopy of 125 nuclei from the 2018 Data Science Bowl (BBBC038, CC0). The
wheel is fetched by the user's own pip, read as the zip file it is, and never installed.
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
# SHA-256 of the two files; all wheels of this version carry the same.
FILES = {
    "img2d.tif": "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    "mask2d.tif": "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
}
FOLDER_IN_WHEEL = "stardist/data/images"
# The machine's own wheel first: a local mirror may hold no other. Then one that PyPI has, for
# machines and Python versions that stardist builds no wheel for.
_WHEELS: tuple[tuple[str, ...], ...] = (
    (),
    ("--platform=win_amd64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"),
)
PIP_SECONDS = 180
INSTEAD = (
    "Without a network, bring your own pair: swin-umamba demo --image IMAGE --mask MASK"
    " (the mask is 0 outside the objects)."
)


def sample_pair() -> tuple[Path, Path]:
    """Paths of the image and the mask, fetched if the cache does not hold them whole.

    Raises UserError if pip cannot fetch the wheel or what it brings is not what is expected; the
    cache is then as before.
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
    """Let pip put the wheel into `folder`."""
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
    """Run pip; what it said last, for when it brought nothing."""
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
    """The two files in a wheel, by name, with their hashes checked."""
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
