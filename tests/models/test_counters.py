"""Rules for thop, ptflops and fvcore: together with their own rules they match the summary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_cases import model_cases
from torch import Tensor, nn

from swin_umamba.models import SegmentationModel
from swin_umamba.models.counters import fvcore_rules, ptflops_rules, thop_rules
from swin_umamba.models.flops import Flops, count_flops

Build = Callable[..., SegmentationModel]
Image = Callable[..., Tensor]
OWN = {nn.Conv2d: 1, nn.Linear: 1}  # the layers that every counter knows


def _expected(model: nn.Module, x: Tensor, scan: bool) -> int:
    with torch.no_grad(), count_flops(model) as counts:
        model(x)
    work = sum(counts.values(), Flops())
    return work.paper_later if scan else work.macs


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("rules", [thop_rules, ptflops_rules])
def test_rules_complete_what_counters_know(
    name: str, scan: bool, rules: Callable[..., dict], small: Build, image: Image
) -> None:
    """As those counters work: by the very type of a layer, with a forward hook each."""
    model, x = small(name).eval(), image(1, 2, 32, 32)
    expected = _expected(model, x, scan)
    total = {thop_rules: "total_ops", ptflops_rules: "__flops__"}[rules]
    custom = rules(scan=scan)

    def own(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        setattr(module, total, getattr(module, total) + output.numel() * module.weight[0].numel())

    counted = {**dict.fromkeys(OWN, own), **custom}
    for module in model.modules():
        setattr(module, total, 0)
        if type(module) in counted:
            module.register_forward_hook(counted[type(module)])
    with torch.no_grad():
        model(x)
    assert sum(getattr(module, total) for module in model.modules()) == expected


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize("scan", [True, False])
def test_thop(name: str, scan: bool, small: Build, image: Image) -> None:
    thop = pytest.importorskip("thop")
    x = image(1, 2, 32, 32)
    found, _ = thop.profile(small(name), (x,), custom_ops=thop_rules(scan=scan), verbose=False)
    assert found == _expected(small(name).eval(), x, scan)


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize("scan", [True, False])
def test_ptflops(name: str, scan: bool, small: Build, image: Image) -> None:
    ptflops = pytest.importorskip("ptflops")
    x = image(1, 2, 32, 32)
    found, _ = ptflops.get_model_complexity_info(
        small(name), tuple(x.shape[1:]), backend="pytorch", as_strings=False, verbose=False,
        print_per_layer_stat=False, custom_modules_hooks=ptflops_rules(scan=scan),
        backend_specific_config={"count_functional": False},
    )  # fmt: skip
    assert found == _expected(small(name).eval(), x, scan)


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize("scan", [True, False])
def test_fvcore(name: str, scan: bool, small: Build, image: Image) -> None:
    nn_tools = pytest.importorskip("fvcore.nn")
    model, x = small(name, backend="cpu").eval(), image(1, 2, 32, 32)
    model.deep_supervision = False
    count = nn_tools.FlopCountAnalysis(model, x).set_op_handle(**fvcore_rules(scan=scan))
    assert count.total() == _expected(model, x, scan)
