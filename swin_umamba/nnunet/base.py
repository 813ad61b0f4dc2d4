"""The common base class of our trainers, derived from nnU-Net's."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from swin_umamba.nnunet import how_to_install
from swin_umamba.nnunet.recipe import (
    LR,
    WEIGHT_DECAY,
    CosineSchedule,
    Recipe,
    build_optimizer,
    inner_model,
    pretrained_file,
    supervision_scales,
    with_encoder_frozen,
)
from swin_umamba.weights import load_pretrained

try:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "nnunetv2":
        raise
    raise ModuleNotFoundError(
        f"the nnU-Net trainers need nnunetv2, which is not installed here: {how_to_install()}",
        name=error.name,
    ) from error
if "plans_manager" not in inspect.signature(nnUNetTrainer.build_network_architecture).parameters:
    raise ImportError(f"nnunetv2 is too old for these trainers: {how_to_install()}")


class SwinUMambaTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net is untyped
    """nnU-Net's trainer with our network and the original implementation's optimizer, schedule and
    freezing.

    A subclass sets `recipe`. Loss, sampling, augmentation, mixed precision and clipping are
    nnU-Net's, which the original implementation did not change.
    """

    recipe: ClassVar[Recipe]
    network: nn.Module

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  # as nnU-Net's, which reads it
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = LR
        self.weight_decay = WEIGHT_DECAY
        self.enable_deep_supervision = self.recipe.deep_supervision
        if self.recipe.epochs is not None:
            self.num_epochs = self.recipe.epochs
        self._restoring = False
        self._frozen = False

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        return cls.recipe.build(
            configuration_manager.patch_size,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )

    def initialize(self) -> None:
        """Build the network; for a new training, load the weights that a pretrained one starts
        from.

        Weights given to nnUNetv2_train by -pretrained_weights are loaded later and override these.
        """
        path = None
        if self.recipe.pretrained and not self._restoring:
            path = pretrained_file(type(self).__name__)
        super().initialize()
        if path is not None:
            report = load_pretrained(inner_model(self.network), path)
            self.print_to_log_file(f"Starting from {path}: {report.summary()}")

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        self._restoring = True
        super().load_checkpoint(filename_or_checkpoint)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, CosineSchedule]:
        optimizer = build_optimizer(self.network)
        return optimizer, CosineSchedule(optimizer, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        inner_model(self.network).deep_supervision = enabled

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        return supervision_scales(inner_model(self.network), self.configuration_manager.patch_size)

    def on_train_epoch_start(self) -> None:
        self._freeze(self.current_epoch < self.recipe.frozen_epochs)
        super().on_train_epoch_start()

    def _freeze(self, frozen: bool) -> None:
        if frozen == self._frozen:
            return
        self.print_to_log_file("Freezing the encoder" if frozen else "Training the encoder, too")
        self.network = with_encoder_frozen(self.network, frozen)
        self._frozen = frozen

    def on_epoch_end(self) -> None:
        # As in the original implementation, whose prediction commands use checkpoint_349.pth.
        if (self.current_epoch + 1) % self.save_every == 0:
            folder = Path(self.output_folder)
            self.save_checkpoint(str(folder / f"checkpoint_{self.current_epoch}.pth"))
        super().on_epoch_end()
