"""Parameters and FLOPs of a model by stage."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_umamba.common.checks import check_positive
from swin_umamba.common.encoders import network_name
from swin_umamba.models import baseline_names, create_model, takes_patch_size
from swin_umamba.models.flops import Flops, count_flops


@dataclass(frozen=True)
class Row:
    """One stage of a model: its name, parameter count, and work."""

    stage: str
    params: int
    work: Flops

    @property
    def flops(self) -> int:
        """FLOPs by the convention of the paper's later version."""
        return self.work.paper_later


@dataclass(frozen=True)
class Summary:
    """A model at one input shape (B, in_channels, H, W), by stage in execution order."""

    name: str
    shape: tuple[int, int, int, int]
    out_channels: int
    rows: tuple[Row, ...]

    @property
    def params(self) -> int:
        return sum(row.params for row in self.rows)

    @property
    def work(self) -> Flops:
        return sum((row.work for row in self.rows), Flops())

    @property
    def flops_paper_first(self) -> int:
        """FLOPs by the convention of the paper's first version."""
        return self.work.paper_first

    @property
    def flops_paper_later(self) -> int:
        """FLOPs by the convention of the paper's later version."""
        return self.work.paper_later

    def render(self, console: Console) -> None:
        """Print the stages as a table."""
        table = Table(
            title=f"{self.name}, {'x'.join(map(str, self.shape))} in, "
            f"{self.out_channels} channels out"
        )
        table.add_column("stage")
        table.add_column("parameters", justify="right")
        table.add_column("GMACs", justify="right")
        table.add_column("GFLOPs, paper v1", justify="right")
        table.add_column("GFLOPs, later", justify="right")
        total = Row("total", self.params, self.work)
        for row in (*self.rows, total):
            figures = (row.work.macs, row.work.paper_first, row.work.paper_later)
            table.add_row(
                row.stage,
                f"{row.params:,}",
                *(f"{figure / 1e9:.2f}" for figure in figures),
                style="bold" if row is total else None,
                end_section=row is self.rows[-1],
            )
        console.print(table)
        console.print(
            "GMACs: convolutions, linear layers and the projections of SS2D. GFLOPs: the same, and "
            "the scan at 4*B*L*K*D*N (paper v1) or 9*B*L*K*D*N + B*L*K*D (later)."
        )


def summarize(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    size: tuple[int, int],
    batch: int = 1,
    **kwargs: Any,
) -> Summary:
    """Count the parameters and FLOPs of `create_model(name, ...)` at `size` = (H, W).

    kwargs: as in `create_model`. Nothing is computed: the model runs on fake tensors. FLOPs are
    those of one forward pass without deep supervision, at the padded size if H or W is not a
    multiple of the model's stride. As in the papers, they include the last encoder stage of
    swin_umamba_v1, which is not run.
    """
    height, width = size
    check_positive(height=height, width=width, batch=batch)
    shape = (batch, in_channels, height, width)
    if takes_patch_size(name):
        kwargs.setdefault("patch_size", size)
    # MONAI computes some drop rates with tensors, so a baseline is built for real.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with contextlib.nullcontext() if name in baseline_names() else fake, torch.no_grad():
        model = create_model(
            name,
            in_channels=in_channels,
            out_channels=out_channels,
            deep_supervision=False,
            **kwargs,
        )
    with fake, torch.no_grad():
        encoder = getattr(model, "vssm_encoder", nn.Identity())  # baselines have none
        encoder_inputs: list[Tensor] = []
        encoder.register_forward_pre_hook(lambda _, args: encoder_inputs.append(args[0]))
        with count_flops(model) as counts:
            model(torch.empty(shape))
            for features in encoder_inputs[:1]:
                encoder(features)
        rows = tuple(_row(stage, parts, counts) for stage, parts in model.stages().items())
    return Summary(network_name(name, kwargs.get("encoder")), shape, out_channels, rows)


def _row(stage: str, parts: list[nn.Module], counts: dict[nn.Module, Flops]) -> Row:
    params = sum(p.numel() for part in parts for p in part.parameters())
    modules = [module for part in parts for module in part.modules()]
    return Row(stage, params, sum((counts.get(m, Flops()) for m in modules), Flops()))
