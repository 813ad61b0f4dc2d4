"""A run's weights in a model with other classes or image channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import TINY

from swin_umamba import create_model
from swin_umamba.weights import continuation, continue_weights, save_weights


def _model(seed: int, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    options = {"in_channels": 1, "out_channels": 3, **TINY, **changes}
    return create_model("swin_umamba_d", **options)


def test_all_but_heads_and_first_layers_are_loaded(tmp_path: Path) -> None:
    source, target = _model(0), _model(1, in_channels=2, out_channels=4)
    save_weights(source, tmp_path / "w.safetensors")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    report = continue_weights(target, tmp_path / "w.safetensors")
    fresh = {entry.target for entry in report.of("skipped")}
    for name, tensor in target.state_dict().items():
        expected = before[name] if name in fresh else source.state_dict()[name]
        assert torch.equal(tensor, expected), name
    assert report.counts() == {"loaded": len(before) - len(fresh), "skipped": len(fresh)}
    line = continuation(report)
    assert "\n" not in line
    assert line.startswith(f"{len(before) - len(fresh)} of {len(before)} tensors loaded; ")
    assert "3 outputs there, 4 here" in line
    assert "1 input channels there, 2 here" in line


def test_the_same_classes_load_whole(tmp_path: Path) -> None:
    source, target = _model(0), _model(1)
    save_weights(source, tmp_path / "w.safetensors")
    report = continue_weights(target, tmp_path / "w.safetensors")
    count = len(source.state_dict())
    assert continuation(report) == f"{count} of {count} tensors loaded"


@pytest.mark.parametrize("changes", [{"dims": (4, 12)}, {"depths": (1, 2)}])
def test_another_model_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_weights(_model(0, **changes), tmp_path / "w.safetensors")
    target = _model(1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ValueError, match="is not of SwinUMambaD"):
        continue_weights(target, tmp_path / "w.safetensors")
    assert all(torch.equal(t, before[n]) for n, t in target.state_dict().items())
