"""The models in MONAI's engines, with the exact code of docs/monai.md."""

from __future__ import annotations

from typing import Any

import pages
import pytest
import torch
from train_helpers import TINY_MODEL, discs

pytest.importorskip("ignite", reason="MONAI's engines need pytorch-ignite")


@pytest.fixture
def items() -> list[dict[str, torch.Tensor]]:
    made = []
    for seed in range(4):
        image, mask = discs(80, seed)
        pixels = torch.from_numpy(image.astype("float32"))[None]
        truth = torch.from_numpy((mask > 0).astype("int64"))[None]
        made.append({"image": (pixels - pixels.mean()) / pixels.std(), "label": truth})
    return made


def test_engines_train_and_validate_as_shown(items: list[dict[str, torch.Tensor]]) -> None:
    code = pages.block("monai.md", "SupervisedTrainer")
    short = {
        "deep_supervision=False": f"deep_supervision=False, **{TINY_MODEL}",
        "max_epochs=100": "max_epochs=12",
        "interval=10": "interval=12",
        "lr=1e-4": "lr=1e-2",
    }
    for shown, tiny in short.items():
        assert code.count(shown) == 1
        code = code.replace(shown, tiny)
    torch.manual_seed(0)
    names: dict[str, Any] = {"items": items}
    exec(compile(code, "monai.md", "exec"), names)
    assert names["trainer"].state.iteration == 24
    # Better than calling everything foreground.
    share = torch.stack([item["label"].float().mean() for item in items]).mean().item()
    everything = 2 * share / (1 + share)
    assert names["evaluator"].state.metrics["dice"] > everything + 0.1
