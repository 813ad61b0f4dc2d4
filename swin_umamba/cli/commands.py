"""How commands display their options: names of models and encoders, groups, value-less flags."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

# Repeated here so that help needs no heavy import; a test compares them with the registries.
MODELS = "swin_umamba, swin_umamba_d (\u2020), swin_umamba_v1"
BASELINES = "dynunet (nnU-Net's network), resenc_m (its ResEnc-M), segresnet, swin_unetr, unetr"
ENCODERS = (
    "vmamba_tiny, vmamba_v2_tiny_s1l8, vmamba_v2_tiny_s2l5, vmamba_v2_small_s1l20,"
    " vmamba_v2_small_s2l15, vmamba_v2_base_s1l20, vmamba_v2_base_s2l15"
)
DEVICES = "auto, cpu, cuda, or cuda:1 for the second GPU"

# Titles of groups of options in the help.
DATA, MODEL, TRAINING, RUNNING = "Data", "Model and weights", "Training", "Running"
OUTPUT, ADVANCED = "Output", "Advanced"


def _flags_without_type(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command whose help shows flags without a value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_without_type(super().get_params(ctx))


class Group(TyperGroup):
    """The same for the top-level group."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_without_type(super().get_params(ctx))
