"""How commands display their options: names of models and encoders, groups, value-less flags."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
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

# Titles of option groups in the help.
DATA, MODEL, TRAINING, RUNNING = "Data", "Model and weights", "Training", "Running"
OUTPUT, ADVANCED = "Output", "Advanced"


def _readable(params: list[Any]) -> list[Any]:
    """Parameters whose help shows no type for flags, and readable types for others."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
        elif hasattr(param, "display_type"):  # of Typer's newer releases
            param.display_type = partial(_type_in_words, type(param).display_type, param)
    return params


def _type_in_words(display_type: Callable[[Any, Any], str], param: Any, ctx: Any) -> str:
    """As `<path>` for `<list[Path]>`, and `<int>` for `<int range>`, whose range is shown beside
    it."""
    shown = re.sub(r"list\[(.*)\]", lambda found: found[1].lower(), display_type(param, ctx))
    return shown.replace(" range", "")


def in_paragraphs(text: str) -> str:
    """A docstring without line breaks inside its paragraphs: terminals wrap them."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


class Command(TyperCommand):
    """A command whose help shows flags without a value, and no negatives of flags that are off."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _readable(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        off = [param for param in self.params if param.secondary_opts and param.default is False]
        negatives = [param.secondary_opts for param in off]
        for param in off:
            param.secondary_opts = []
        try:
            super().format_help(ctx, formatter)
        finally:
            for param, words in zip(off, negatives, strict=True):
                param.secondary_opts = words


class Group(TyperGroup):
    """The same for the top-level group."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _readable(super().get_params(ctx))
