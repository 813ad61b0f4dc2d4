"""How the nnU-Net trainers differ from nnU-Net's, without nnU-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import SECOND
from torch import nn

from swin_umamba import create_model
from swin_umamba.errors import UserError
from swin_umamba.losses import scale_weights
from swin_umamba.models import SegmentationModel
from swin_umamba.nnunet import recipe as recipes
from swin_umamba.nnunet.recipe import Recipe
from swin_umamba.runs.config import TrainConfig

TINY: dict[str, Any] = {"dims": (8, 16), "depths": (1, 1), "d_state": 2}


def _tiny(name: str = "swin_umamba_d") -> SegmentationModel:
    return create_model(name, in_channels=2, out_channels=3, **TINY)


def test_numbers_are_those_of_training_in_our_own_loop() -> None:
    own = TrainConfig()
    names = ("LR", "MIN_LR", "WEIGHT_DECAY", "EPS", "BETAS")
    values = tuple(getattr(recipes, name) for name in names)
    assert values == (own.lr, own.min_lr, own.weight_decay, own.eps, own.betas)
    assert own.freeze_iterations == 250 * recipes.FROZEN_EPOCHS


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize("name", ["swin_umamba", "swin_umamba_d"])
def test_builds_the_release_s_network(
    name: str, deep_supervision: bool, second: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def create(name: str, **arguments: Any) -> SegmentationModel:
        asked.update(arguments, name=name)
        return create_model(name, **arguments, **TINY)

    monkeypatch.setattr(recipes, "create_model", create)
    encoder = {"encoder": SECOND} if second else {}
    model = Recipe(name, pretrained=True, **encoder).build((64, 48), 2, 3, deep_supervision)
    assert asked == {
        "name": name,
        "in_channels": 2,
        "out_channels": 3,
        "deep_supervision": deep_supervision,
        **encoder,
    }
    assert model.deep_supervision is deep_supervision


def test_refuses_three_dimensions() -> None:
    with pytest.raises(UserError, match="3 dimensions, expected 2"):
        Recipe("swin_umamba", pretrained=False).build((16, 64, 64), 1, 2, True)


@pytest.mark.parametrize("name", ["swin_umamba", "swin_umamba_d"])
@pytest.mark.parametrize("size", [(64, 96), (56, 40), (35, 18)])
def test_scales_give_targets_of_the_logits_sizes(name: str, size: tuple[int, int]) -> None:
    model = _tiny(name)
    scales = recipes.supervision_scales(model, size)
    assert len(scales) == len(model.scales)
    with torch.no_grad():
        outputs = model(torch.zeros(1, 2, *size))
    for scale, output in zip(scales, outputs, strict=True):
        # As nnU-Net takes its targets to a scale.
        assert [round(i * j) for i, j in zip(size, scale, strict=True)] == list(output.shape[2:])


def test_scales_are_the_release_s() -> None:
    sizes = (320, 384)
    convolutional = create_model("swin_umamba", in_channels=1, out_channels=2)
    assert recipes.supervision_scales(convolutional, sizes) == [
        [1, 1],
        [1 / 2, 1 / 2],
        [1 / 4, 1 / 4],
        [1 / 8, 1 / 8],
    ]
    dagger = create_model("swin_umamba_d", in_channels=1, out_channels=2)
    scales = recipes.supervision_scales(dagger, sizes)
    assert scales == [[1, 1], [1 / 4, 1 / 4], [1 / 8, 1 / 8], [1 / 16, 1 / 16]]
    # nnU-Net's own rule makes the weights from their number.
    assert scale_weights(len(scales)) == (4 / 7, 2 / 7, 1 / 7, 0)


def test_optimizer_and_schedule() -> None:
    model = _tiny()
    optimizer = recipes.build_optimizer(model)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters()))
    assert (group["lr"], group["weight_decay"], group["eps"]) == (1e-4, 0.05, 1e-5)
    schedule = recipes.CosineSchedule(optimizer, 1000)
    released = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.AdamW(model.parameters(), lr=1e-4), T_max=1000, eta_min=1e-6
    )
    for epoch in range(1, 1001):
        released.optimizer.step()
        released.step()
        if epoch % 250 == 0:
            schedule.step(epoch)
            assert group["lr"] == pytest.approx(released.get_last_lr()[0], rel=1e-9)


def test_pretrained_encoder_is_frozen_at_first() -> None:
    assert Recipe("swin_umamba", pretrained=True).frozen_epochs == 10
    assert Recipe("swin_umamba", pretrained=False).frozen_epochs == 0


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_freezes_and_trains_the_encoder_under_ddp() -> None:
    network: nn.Module = nn.parallel.DistributedDataParallel(_tiny())
    images = torch.rand(2, 2, 32, 32)
    for frozen in (True, True, False, False):
        network = recipes.with_encoder_frozen(network, frozen)
        for _ in range(2):  # DDP complains of a missing gradient in the step after it
            network.zero_grad(set_to_none=True)
            sum(output.square().mean() for output in network(images)).backward()
        model = recipes.inner_model(network)
        without = {name for name, p in model.named_parameters() if p.grad is None}
        assert without == {n for n, p in model.named_parameters() if not p.requires_grad}
        assert any(name.startswith("vssm_encoder.layers") for name in without) is frozen


def test_finds_the_model_in_its_wrappers() -> None:
    model = _tiny()
    assert recipes.inner_model(model) is model
    assert recipes.inner_model(torch.compile(model)) is model


def test_pretrained_file_must_be_named_and_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set SWIN_UMAMBA_PRETRAINED.*Scratch"):
        recipes.pretrained_file("nnUNetTrainerSwinUMamba", {})
    missing = str(tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"SWIN_UMAMBA_PRETRAINED: got .*missing.pth"):
        recipes.pretrained_file("trainer", {"SWIN_UMAMBA_PRETRAINED": missing})
    Path(missing).touch()
    assert recipes.pretrained_file("trainer", {"SWIN_UMAMBA_PRETRAINED": missing}).is_file()
