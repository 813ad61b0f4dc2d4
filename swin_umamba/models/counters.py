"""Rules for third-party counters of multiply-adds: thop, ptflops, fvcore.

They know PyTorch's own layers and operators; these rules add the fused layers and the scan:

    thop.profile(model, inputs=(x,), custom_ops=thop_rules())
    ptflops.get_model_complexity_info(model, shape, backend="pytorch",
                                      custom_modules_hooks=ptflops_rules(),
                                      backend_specific_config={"count_functional": False})
    fvcore.nn.FlopCountAnalysis(model, x).set_op_handle(**fvcore_rules())

All count as `swin-umamba summary` does, one per multiply-add; norms, activations and biases count
nothing. ptflops would count them; this is avoided by rules for its own layers and by not counting
functions called inside layers. The scan counts as in the paper's later version, 9 per state and
step plus 1 per step, or, with scan=False, not at all except for its projections. Importing this
module needs none of the counters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from swin_umamba.models.flops import rule_of
from swin_umamba.models.fused import (
    Conv3x3,
    DepthwiseConv2d,
    InstanceNorm,
    LayerNorm,
    PointwiseConv2d,
)
from swin_umamba.models.ss2d import DIRECTIONS, Scan

LayerRule = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]
OperatorRule = Callable[[list[Any], list[Any]], float]
# thop multiplies a transposed convolution's count by its stride squared.
_LAYERS: tuple[type[nn.Module], ...] = (
    Conv3x3,
    DepthwiseConv2d,
    PointwiseConv2d,
    nn.ConvTranspose2d,
    Scan,
)
_NORMS: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.InstanceNorm2d, LayerNorm, InstanceNorm)

_PTFLOPS_OWN: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)
_ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU)


def thop_rules(*, scan: bool = True) -> dict[type[nn.Module], LayerRule]:
    """For thop's `custom_ops`."""
    return _layer_rules("total_ops", scan)


def ptflops_rules(*, scan: bool = True) -> dict[type[nn.Module], LayerRule]:
    """For ptflops' `custom_modules_hooks`."""
    rules = _layer_rules("__flops__", scan)
    rules.update(dict.fromkeys(_PTFLOPS_OWN, rules[Scan]))
    rules.update(dict.fromkeys(_ACTIVATIONS, rules[LayerNorm]))
    return rules


def fvcore_rules(*, scan: bool = True) -> dict[str, OperatorRule]:
    """For `FlopCountAnalysis.set_op_handle`, on any backend but "reference" and "export"."""

    def ss2d(inputs: list[Any], outputs: list[Any]) -> float:
        x, _, weight, _, A_logs = (_sizes(value) for value in inputs[:5])
        steps = DIRECTIONS * x[0] * x[1] * x[2] * x[3]
        work = (9 * A_logs[1] + 1) if scan else 0
        return float(steps * (weight[2] + work))

    def depthwise(inputs: list[Any], outputs: list[Any]) -> float:
        taps = _sizes(inputs[1])[2] ** 2
        return float(_count(_sizes(inputs[0])) * taps)

    def convolution(inputs: list[Any], outputs: list[Any]) -> float:
        x, weight = _sizes(inputs[0]), _sizes(inputs[1])
        return float(x[0] * x[1] * x[2] * _count(weight))

    def mlp(inputs: list[Any], outputs: list[Any]) -> float:
        x, weight1, weight2 = (_sizes(inputs[i]) for i in (0, 1, 3))
        return float(_count(x[:-1]) * (_count(weight1) + _count(weight2)))

    return {
        "swin_umamba::ss2d_scan": ss2d,
        "swin_umamba::depthwise_conv_silu": depthwise,
        "swin_umamba::conv3x3": convolution,
        "swin_umamba::norm_act_conv3x3": convolution,
        "swin_umamba::mlp_gelu": mlp,
        "aten::layer_norm": lambda inputs, outputs: 0.0,
        "aten::instance_norm": lambda inputs, outputs: 0.0,
    }


def _layer_rules(total: str, scan: bool) -> dict[type[nn.Module], LayerRule]:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        work = rule_of(module)(module, inputs, output)
        setattr(module, total, getattr(module, total) + (work.paper_later if scan else work.macs))

    def nothing(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A norm."""

    return {**dict.fromkeys(_LAYERS, add), **dict.fromkeys(_NORMS, nothing)}


def _sizes(value: Any) -> list[int]:
    """Of an argument in a graph of torch.jit."""
    found: list[int] = value.type().sizes()
    return found


def _count(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
