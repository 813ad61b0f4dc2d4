"""The trainers as nnU-Net finds and uses them, if it is installed; see also end_to_end.sh."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from swin_umamba import create_model
from swin_umamba.errors import UserError
from swin_umamba.nnunet import TRAINER_FOLDER

find_objects = pytest.importorskip("nnunetv2.utilities.find_objects")
TINY: dict[str, Any] = {"dims": (8, 16), "depths": (1, 1), "d_state": 2}


def _find(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINER_FOLDER))
    return find_objects.recursive_find_trainer_class_by_name(name)


@pytest.mark.parametrize(
    ("name", "model", "pretrained", "deep_supervision"),
    [
        (f"nnUNetTrainerSwinUMamba{dagger}{second}{scratch}", model, not scratch, supervised)
        for second in ("", "V2")
        for dagger, scratch, model, supervised in (
            ("", "", "swin_umamba", True),
            ("", "Scratch", "swin_umamba", True),
            ("D", "", "swin_umamba_d", True),
            ("D", "Scratch", "swin_umamba_d", False),
        )
    ],
)
def test_nnunet_finds_them(
    name: str,
    model: str,
    pretrained: bool,
    deep_supervision: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _find(name, monkeypatch).recipe
    assert (recipe.model, recipe.pretrained, recipe.deep_supervision) == (
        model,
        pretrained,
        deep_supervision,
    )
    assert recipe.encoder == ("vmamba_v2_tiny_s1l8" if "V2" in name else "vmamba_tiny")


@pytest.mark.parametrize("name", ["nnUNetTrainerSwinUMambaScratch", "nnUNetTrainerSwinUMambaD"])
def test_short_trainers_differ_in_length_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = name if name.endswith("Scratch") else f"{name}Scratch"
    long, short = (_find(n, monkeypatch).recipe for n in (scratch, f"{scratch}_5epochs"))
    assert short == dataclasses.replace(long, epochs=5)


def test_short_trainers_train_for_five_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = _find("nnUNetTrainerSwinUMambaDScratch_5epochs", monkeypatch)

    def initialise(self: Any, *arguments: Any) -> None:
        self.num_epochs = 1000

    monkeypatch.setattr(cls.__mro__[2], "__init__", initialise)  # nnU-Net's own
    assert cls({}, "2d", 0, {}).num_epochs == 5


def _trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trainer with a network, but without plans and folders."""
    trainer = object.__new__(_find("nnUNetTrainerSwinUMambaD", monkeypatch))
    trainer.is_ddp = False
    trainer._restoring = trainer._frozen = False
    trainer.network = create_model("swin_umamba_d", in_channels=1, out_channels=2, **TINY)
    trainer.optimizer, trainer.num_epochs = torch.optim.SGD(trainer.network.parameters(), 1), 1000
    trainer.print_to_log_file = lambda *lines: None
    trainer.logger = SimpleNamespace(log=lambda *values: None)
    _, trainer.lr_scheduler = trainer.configure_optimizers()
    return trainer


@pytest.mark.parametrize(("epoch", "frozen"), [(0, True), (9, True), (10, False), (500, False)])
def test_encoder_trains_from_the_tenth_epoch_on(
    epoch: int, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(monkeypatch)
    for trainer.current_epoch in (0, epoch):
        trainer.on_train_epoch_start()
    still = {n for n, p in trainer.network.named_parameters() if not p.requires_grad}
    encoder = {
        n
        for n, _ in trainer.network.named_parameters()
        if n.startswith("vssm_encoder.") and "patch_embed" not in n
    }
    assert still == (encoder if frozen else set())


def test_missing_weights_are_told_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = _trainer(monkeypatch)
    monkeypatch.delenv("SWIN_UMAMBA_PRETRAINED", raising=False)
    trainer.was_initialized = True  # nnU-Net's own would raise RuntimeError for this
    with pytest.raises(UserError, match="set SWIN_UMAMBA_PRETRAINED"):
        trainer.initialize()


def test_refuses_three_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _find("nnUNetTrainerSwinUMamba", monkeypatch)
    configuration = SimpleNamespace(patch_size=[16, 64, 64])
    with pytest.raises(UserError, match="configuration 2d"):
        trainer.build_network_architecture(None, configuration, 1, 2, False)
