"""backend="export": right by itself, and one graph for every size once exported."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import (
    ScanCase,
    SS2DCase,
    assert_close_to_float64,
    cast_scan,
    cast_ss2d,
    make_scan,
    make_ss2d,
)
from torch import Tensor

import swin_umamba_ops as ops


class _SS2D(torch.nn.Module):
    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = list(parameters)
        for name, value in parameters.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return ops.ss2d(x, *(self.get_buffer(name) for name in self.names), backend="export")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [SS2DCase(2, 6, 5, 7, 3, 2), SS2DCase(1, 4, 1, 3, 1, 1)], ids=str)
def test_ss2d_agrees_with_the_reference(case: SS2DCase, dtype: torch.dtype) -> None:
    inputs = cast_ss2d(make_ss2d(case), dtype)
    exact = ops.ss2d(*(t.double() for t in inputs.values()), backend="reference")
    plain = ops.ss2d(*inputs.values(), backend="reference")
    out = ops.ss2d(*inputs.values(), backend="export")
    assert out.dtype == plain.dtype
    assert_close_to_float64({"out": out}, {"out": exact}, {"out": plain})


@pytest.mark.parametrize("case", [ScanCase(2, 12, 9, 5, 4), ScanCase(1, 3, 2, 4)], ids=str)
def test_selective_scan_agrees_with_the_reference(case: ScanCase) -> None:
    inputs = cast_scan(make_scan(case), torch.float32)

    def run(tensors: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
        out, last = ops.selective_scan(
            *tensors.values(), delta_softplus=True, return_last_state=True, backend=backend
        )
        return {"out": out, "last": last}

    exact = run({name: t.double() for name, t in inputs.items()}, "reference")
    assert_close_to_float64(run(inputs, "export"), exact, run(inputs, "reference"))


def test_gradients_are_refused() -> None:
    ss2d = list(make_ss2d(SS2DCase(1, 2, 2, 2, 1, 1)).values())
    scan = list(make_scan(ScanCase(1, 2, 3, 1)).values())
    ss2d[3].requires_grad_()
    scan[2].requires_grad_()
    for function, inputs in ((ops.ss2d, ss2d), (ops.selective_scan, scan)):
        with pytest.raises(RuntimeError, match="no_grad"):
            function(*inputs, backend="export")
        with torch.no_grad():
            function(*inputs, backend="export")


def test_transforms_are_refused() -> None:
    """The scan operator ended in errors about its own graph under them."""
    inputs = list(make_ss2d(SS2DCase(2, 2, 2, 2, 1, 1)).values())

    def run(x: Tensor) -> Tensor:
        return ops.ss2d(x, *inputs[1:], backend="export")

    images = torch.stack([inputs[0]] * 2)
    calls: list[Callable[[], object]] = [
        lambda: torch.func.vmap(run)(images),
        lambda: torch.func.jvp(run, (inputs[0],), (inputs[0],)),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"'export' has no transforms of torch\.func"):
            call()


def test_an_empty_batch_of_sequences() -> None:
    inputs = {
        name: t[:0] if t.dim() > 2 else t for name, t in make_scan(ScanCase(2, 4, 3, 2)).items()
    }
    out, last = ops.selective_scan(**inputs, return_last_state=True, backend="export")
    assert out.shape == (0, 4, 3)
    assert last.shape == (0, 4, 2)


@pytest.mark.slow
def test_the_graph_does_not_grow_and_serves_every_size() -> None:
    def exported(case: SS2DCase) -> torch.export.ExportedProgram:
        x, *parameters = cast_ss2d(make_ss2d(case), torch.float32).values()
        names = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
        dynamic = {i: torch.export.Dim(name, min=2) for i, name in ((0, "B"), (2, "H"), (3, "W"))}
        module = _SS2D(dict(zip(names, parameters, strict=True)))
        return torch.export.export(
            module,
            (x,),
            dynamic_shapes=(dynamic,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )

    small, large = exported(SS2DCase(2, 6, 3, 4, 3, 2)), exported(SS2DCase(3, 6, 30, 20, 3, 2))
    assert len(small.graph.nodes) == len(large.graph.nodes)
    targets = [node.target for node in small.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.higher_order.scan) == 1
    assert not [t for t in targets if str(t).startswith("swin_umamba")]

    x = make_ss2d(SS2DCase(3, 6, 11, 9, 3, 2))["x"].float()
    torch.testing.assert_close(
        large.module()(x), ops.ss2d(x, *large.state_dict.values(), backend="reference")
    )
