"""Segment files with just an ONNX file, which contains preprocessing and labels."""

from __future__ import annotations

import os
from pathlib import Path

from swin_umamba.data import read_raw, write_labels
from swin_umamba.inference.predictor import Predictor
from swin_umamba.inference.sources import open_export


class OnnxPredictor(Predictor):
    """The earlier name of `Predictor.from_export`, for a single file."""

    def __init__(
        self, path: str | os.PathLike[str], *, overlap: float | None = None, batch_size: int = 4
    ) -> None:
        source = open_export(Path(path), overlap=overlap)
        super().__init__(
            source.network,
            plan=source.plan,
            patch_size=source.patch_size,
            overlap=source.overlap,
            batch_size=batch_size,
            keep_largest=source.keep_largest,
        )
        self.network = source.network

    def predict_file(self, image: str | Path, output: str | Path) -> None:
        """Segment one file and write its labels with the values of the training masks."""
        raw = read_raw(image)
        write_labels(output, self.segment(raw), raw, self.plan.values)
