"""One training of `python -m benchmarks accuracy`, by the commands that users type.

python -m benchmarks.training.accuracy_worker DATASET RUN [options of `swin-umamba train`]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.training.accuracy import DONE, ENCODER
from swin_umamba.cli import app
from swin_umamba.data import open_dataset


def _validation_images(dataset: Path, run: Path, folder: Path) -> None:
    """Links to the images of the cases that the run was validated on."""
    validated = json.loads((run / "splits.json").read_text())[0]["val"]
    opened = open_dataset(dataset)
    for name in validated:
        for image in opened.case(name).images:
            (folder / image.name).symlink_to(image.resolve())


def _save_encoder(run: Path) -> None:
    """What the run's model has learned before its decoder, for another dataset to begin with."""
    weights = load_file(run / "model.safetensors")
    encoder = {name: t for name, t in weights.items() if name.startswith("vssm_encoder.")}
    if encoder:
        save_file(encoder, run / ENCODER)


def _swin_umamba(*words: str) -> None:
    """A command of the CLI; ends this process with its status where that is not 0."""
    if status := app(list(words), standalone_mode=False):
        sys.exit(status)


def main(dataset: Path, run: Path, options: list[str]) -> None:
    device = options[options.index("--device") + 1]
    _swin_umamba("train", str(dataset), str(run), *options)
    _save_encoder(run)
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary)
        _validation_images(dataset, run, images)
        masks = run / "predictions"
        last = ("--last", "--device", device)
        _swin_umamba("predict", str(run), str(images), str(masks), *last)
    scores = run / "scores.part"
    against = ("--run", str(run), "--json", str(scores))
    _swin_umamba("evaluate", str(masks), str(dataset), *against)
    _swin_umamba("report", str(run))
    scores.rename(run / DONE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
