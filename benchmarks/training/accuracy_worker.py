"""One training of `python -m benchmarks accuracy`, by the same commands that users run.

python -m benchmarks.training.accuracy_worker DATASET RUN [--half-windows] [options of
`swin-umamba train`]

--half-windows: predict and score a second time with windows of half the side.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.training.accuracy import DONE, ENCODER, HALF, HALF_WINDOWS
from swin_umamba.cli import app
from swin_umamba.data import open_dataset


def _validation_images(dataset: Path, run: Path, folder: Path) -> None:
    """Links to the images of the run's validation cases."""
    validated = json.loads((run / "splits.json").read_text())[0]["val"]
    opened = open_dataset(dataset)
    for name in validated:
        for image in opened.case(name).images:
            (folder / image.name).symlink_to(image.resolve())


def _save_encoder(run: Path) -> None:
    """The weights before the run's decoder, as a start for another dataset."""
    weights = load_file(run / "model.safetensors")
    encoder = {name: t for name, t in weights.items() if name.startswith("vssm_encoder.")}
    if encoder:
        save_file(encoder, run / ENCODER)


def _swin_umamba(*words: str) -> None:
    """Run a CLI command; ends this process with its status if that is not 0."""
    if status := app(list(words), standalone_mode=False):
        sys.exit(status)


def _scored(dataset: Path, run: Path, device: str, name: str, *options: str) -> Path:
    """A file with the scores of the last weights, whose masks are in the run's folder `name`."""
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary)
        _validation_images(dataset, run, images)
        last = ("--last", "--device", device, *options)
        _swin_umamba("predict", str(run), str(images), str(run / name), *last)
    scores = run / f"{name}.part"
    against = ("--run", str(run), "--json", str(scores))
    _swin_umamba("evaluate", str(run / name), str(dataset), *against)
    return scores


def main(dataset: Path, run: Path, options: list[str]) -> None:
    device = options[options.index("--device") + 1]
    train = [option for option in options if option != HALF_WINDOWS]
    _swin_umamba("train", str(dataset), str(run), *train)
    _save_encoder(run)
    scores = _scored(dataset, run, device, "predictions")
    if HALF_WINDOWS in options:
        sides = json.loads((run / "config.json").read_text())["patch_size"]
        half = [str(max(side // 2, 1)) for side in sides]
        _scored(dataset, run, device, "half_windows", "--patch-size", *half).rename(run / HALF)
    _swin_umamba("report", str(run))
    scores.rename(run / DONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
