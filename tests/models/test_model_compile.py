"""torch.compile sees each model as one graph."""

from __future__ import annotations

import pytest
import torch
from model_cases import model_cases
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError
from torch._inductor.graph import GraphLowering

from swin_umamba.common.compiling import compiled
from swin_umamba.models.blocks import UpBlock
from swin_umamba_ops import backends, fused


@pytest.mark.slow
@pytest.mark.parametrize("name", model_cases())
def test_fullgraph_agrees_with_eager(name, small, image):
    model = small(name, dims=(8, 12), depths=(1, 1), drop_path_rate=0.0).train()
    x = image(1, 2, 17, 16)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    def step(run):
        model.zero_grad(set_to_none=True)
        outputs = run(x)
        sum((out**2).mean() for out in outputs).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [out.detach() for out in outputs], gradients

    results, references = step(compiled), step(model)
    for result, reference in zip(results, references, strict=True):
        assert len(result) == len(reference)
        for a, b in zip(result, reference, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_compiled_models_take_other_sizes(small, image):
    """Both sides changed, to a size that is padded; a single channel, whose layout is open."""
    model = small("swin_umamba", in_channels=1, dims=(8, 12), depths=(1, 1)).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model)
    # Without vector instructions the compiler takes half the time for the same graph.
    with torch.no_grad(), torch._inductor.config.patch({"cpp.simdlen": 1}):
        for size in ((32, 32), (35, 45)):
            x = image(2, 1, *size)
            for a, b in zip(compiled(x), model(x), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_drop_path_is_part_of_the_graph(small, image):
    model = small("swin_umamba_d", dims=(8, 12), depths=(1, 1), drop_path_rate=0.9).train()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = image(1, 2, 16, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        draws = [compiled(x)[0] for _ in range(8)]
    assert any(not torch.equal(draws[0], draw) for draw in draws)


def _use_kernels_around_the_scan(monkeypatch):
    monkeypatch.setattr(fused, "resolved", lambda *_: backends.BACKENDS["triton"])


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("train", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", model_cases())
def test_fullgraph_with_the_ops_of_gpus(name, train, amp, small, image, monkeypatch):
    """Traced as on a GPU, where kernels take the place of PyTorch's operators; nothing is run."""
    _use_kernels_around_the_scan(monkeypatch)
    found = set()

    def stop(graph, inputs):
        found.update(str(node.target) for node in graph.graph.nodes)
        raise RuntimeError("traced")

    model = small(name, dims=(8, 12), depths=(1, 1)).train(train)
    torch._dynamo.reset()
    compiled = torch.compile(
        model, fullgraph=True, dynamic=False, backend=aot_autograd(fw_compiler=stop)
    )
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=amp)
    with (
        autocast,
        torch.set_grad_enabled(train),
        pytest.raises(BackendCompilerFailed, match="traced"),
    ):
        compiled(image(1, 2, 32, 32))
    assert {"swin_umamba.ss2d_scan.default", "swin_umamba.layer_norm.default"} <= found


@pytest.mark.slow
def test_compiled_code_copies_no_map_around_our_ops(monkeypatch):
    """Written for a CPU, with the ops of GPUs: all it has to make itself is the concatenation."""
    written = []

    def stop(code):
        written.append(code.count("async_compile.cpp_pybinding("))
        raise RuntimeError("written")

    _use_kernels_around_the_scan(monkeypatch)
    monkeypatch.setattr(GraphLowering, "save_output_code", stop)
    block = UpBlock(8, 4).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    skip = torch.randn(2, 4, 16, 16).contiguous(memory_format=torch.channels_last)
    for function in (compiled(block), torch.compile(block)):
        torch._dynamo.reset()
        caches = torch._inductor.config.patch(force_disable_caches=True)
        with caches, pytest.raises(InductorError, match="written"):
            function(x, skip)
    ours, plain = written
    assert ours == 1
    assert plain > 1, "inductor keeps layouts now: common.compiling has nothing left to do"
