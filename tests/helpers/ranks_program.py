"""Run by a launcher in each of its processes: what `test_train_together` compares with one process.

Arguments: a folder to write to, the device (cpu or cuda), the number of processes, and for FSDP
"fsdp". With two processes all CONFIGS and more are trained, with others the first of them alone.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from run_helpers import TINY, disc_case, signalled_at, tiny_config
from torch import Tensor, nn

from swin_umamba.data import Case
from swin_umamba.loop.world import World
from swin_umamba.losses import DeepSupervisionLoss
from swin_umamba.models import SegmentationModel
from swin_umamba.train import TrainConfig, TrainResult, network, stepping, train

SPOILT = "vssm_encoder.layers.0.blocks.0.self_attention"
_PLAIN = {**TINY, "drop_path_rate": 0.0}  # dropped paths are each process's own
_NO_DECODER = {name: value for name, value in _PLAIN.items() if name != "decoder_depths"}
_COMMON: dict[str, Any] = {"batch_size": 4, "iterations": 6, "validate_every": 3}

CONFIGS: dict[str, dict[str, Any]] = {
    "dagger": {**_COMMON, "model_options": _PLAIN, "accumulate": 2, "ema": 0.9},
    "images": {
        **_COMMON,
        "model": "swin_umamba",
        "model_options": _NO_DECODER,
        "batch_dice": False,
        "checkpoint_activations": True,
    },
    "frozen": {
        **_COMMON,
        "model": "swin_umamba_v1",
        "model_options": _NO_DECODER,
        "pretrained": "v1.safetensors",
        "freeze_iterations": 3,
    },
}


def cases() -> list[Case]:
    """Two to train on, one of them half without truth, and three to validate on."""
    made = [disc_case(i) for i in range(5)]
    mask = made[0].mask.copy()
    mask[:, :12] = -1
    return [Case("half", made[0].image, mask), *made[1:]]


def run(
    folder: Path, name: str, *, device: str = "cpu", amp: str = "off", **options: Any
) -> TrainResult:
    config = tiny_config(**CONFIGS[name], device=device, amp=amp)
    if config.pretrained is not None:
        config = config.changed({"pretrained": str(folder / config.pretrained)})
    return _train(folder / options.pop("into", name), config, **options)


def _train(path: Path, config: TrainConfig, **options: Any) -> TrainResult:
    made = cases()
    return train(config, made[:2], made[2:], path, **options)


def run_spoilt(folder: Path, device: str) -> TrainResult:
    """A run in which a layer's output is NaN in two iterations, after the checkpoint of the 3rd."""
    passes = 0

    def spoilt(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal passes
        passes += module.training and torch.is_grad_enabled()
        return output * torch.nan if module.training and passes in (4, 5) else output

    def build(config: TrainConfig, **options: Any) -> SegmentationModel:
        model = network.build_model(config, **options)
        model.get_submodule(SPOILT).register_forward_hook(spoilt)
        return model

    config = tiny_config(
        **_COMMON, model_options=_PLAIN, ema=0.9, max_skipped=2, device=device, amp="off"
    )
    with mock.patch.object(stepping, "build_model", build):
        return _train(folder / "spoilt", config)


class Scaled(nn.Module):
    """A model of one weight a class and scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 6, dtype=torch.float64).view(2, 3))

    def forward(self, logits: list[Tensor]) -> list[Tensor]:
        return [w.view(1, -1, 1, 1) * x for w, x in zip(self.weight, logits, strict=True)]


def loss_inputs() -> tuple[list[Tensor], Tensor]:
    """Logits of four images at two scales in float64, and their mostly ignored ground truth."""
    rng = np.random.default_rng(0)
    logits = [torch.from_numpy(rng.standard_normal((4, 3, n, n))) for n in (8, 4)]
    target = torch.from_numpy(rng.integers(0, 3, (4, 8, 8)))
    target[0] = -1
    target[2, :5] = -1
    return logits, target


def loss_and_gradient(model: nn.Module, loss_of: nn.Module, part: slice) -> list[list[float]]:
    logits, target = loss_inputs()
    model.zero_grad()
    loss = loss_of(model([x[part] for x in logits]), target[part])
    loss.backward()
    (weight,) = model.parameters()
    assert weight.grad is not None
    return [[loss.item()], weight.grad.flatten().tolist()]


def _losses(folder: Path, world: World) -> None:
    parallel = world.wrapped(Scaled())
    part = slice(2 * world.rank, 2 * world.rank + 2)
    found = {
        str(batch_dice): loss_and_gradient(
            parallel, DeepSupervisionLoss((0.7, 0.3), batch_dice, across_ranks=True), part
        )
        for batch_dice in (True, False)
    }
    (folder / f"losses{world.rank}.json").write_text(json.dumps(found))


def plain_float32() -> None:
    """Float32 products on GPUs too, so that one and two processes differ only by rounding."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _say_how_it_left(folder: Path) -> None:
    still = torch.distributed.is_initialized()
    (folder / f"left{os.environ['RANK']}.json").write_text(json.dumps({"in a group": still}))


def _main(folder: Path, device: str, processes: int) -> None:
    torch.set_num_threads(1)
    plain_float32()
    atexit.register(_say_how_it_left, folder)  # before World's own, so that it is called after it
    world = World(device)
    assert world.size == processes
    assert world.sharded == (sys.argv[4:] == ["fsdp"])
    if processes != 2:
        run(folder, "dagger", device=device)
        return
    if device == "cpu" and not world.sharded:
        _losses(folder, world)
    for name in CONFIGS:
        run(folder, name, device=device)
    run_spoilt(folder, device)
    for amp in ("bf16", "fp16") if device == "cuda" else ():
        run(folder, "dagger", device=device, amp=amp, into=amp)
    # One process is asked to stop, and all do.
    on_progress = signalled_at(2, signal.SIGTERM) if world.rank == 1 else None
    stopped: dict[str, Any] = {"device": device, "into": "stopped"}
    assert run(folder, "dagger", **stopped, on_progress=on_progress).stopped
    assert len(run(folder, "dagger", **stopped, resume=True).records) == 6
    run(folder, "dagger", device=device, into="handed_over", on_progress=on_progress)
    # What one process began.
    assert len(run(folder, "dagger", device=device, into="grown", resume=True).records) == 6


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
