"""CUDA graphs of a model: refusals anywhere, and agreement with eager mode on a GPU."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from model_cases import model_cases

from swin_umamba.common.graphs import GraphedInference, GraphedStep
from swin_umamba.losses import DeepSupervisionLoss, scale_weights

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


def test_an_image_on_the_cpu_is_refused(small, image):
    with pytest.raises(ValueError, match="image: got a tensor on cpu"):
        GraphedInference(small("swin_umamba_d"), image(1, 2, 32, 32))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", model_cases())
def test_a_graphed_step_has_the_gradients_of_an_eager_one(name, small, image, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = small(name, drop_path_rate=0.0).cuda().train()

    def loss(outputs, target):
        return DeepSupervisionLoss(scale_weights(len(outputs)))(outputs, target)

    def batch(seed):
        g = torch.Generator().manual_seed(seed)
        target = torch.randint(3, (2, 64, 64), generator=g)
        return torch.randn(2, 2, 64, 64, generator=g).cuda(), target.cuda()

    x, target = batch(3)
    held = loss(model(x), target)  # with its graph, as loops keep a loss to log it
    held.backward()
    step = GraphedStep(model, loss, *batch(0))
    x, target = batch(1)
    step(*batch(2))
    value = step(x, target).clone()
    graphed = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    expected = loss(model(x), target)
    expected.backward()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5)
    eager = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert graphed.keys() == eager.keys()
    norm = torch.linalg.vector_norm
    for n, gradient in eager.items():
        assert norm(graphed[n] - gradient) <= 1e-3 * norm(gradient) + 1e-5, n


@pytest.mark.gpu
@needs_gpu
def test_a_graphed_step_keeps_what_it_reads(small, image):
    """Its caller may drop model, loss and scaler, whose memory would then be used again."""
    x, target = image(2, 2, 64, 64).cuda(), torch.ones(2, 64, 64, device="cuda").long()

    def made():
        model = small("swin_umamba_d", drop_path_rate=0.0).cuda().train()
        factor, scaler = torch.ones((), device="cuda"), torch.amp.GradScaler(init_scale=8.0)
        supervised = DeepSupervisionLoss(scale_weights(len(model.scales)))

        def loss(outputs, masks):
            return supervised(outputs, masks) * factor

        step = GraphedStep(model, loss, x, target, scaler=scaler)
        return step, [weakref.ref(each) for each in (model, factor, scaler)]

    step, references = made()
    gc.collect()
    torch.cuda.empty_cache()
    assert all(reference() is not None for reference in references)
    first = step(x, target).clone()
    torch.testing.assert_close(step(x, target), first, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", model_cases())
def test_a_graphed_inference_is_the_eager_one_and_checks_its_image(name, small, image, monkeypatch):
    # In TensorFloat-32 the last digit of a sum, which changes from run to run, becomes 5e-4.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = small(name, deep_supervision=False).cuda().eval()
    x = image(1, 2, 64, 64).cuda()
    graph = GraphedInference(model, torch.zeros_like(x))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="image: got"):
        graph(x[:, :, :32])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", model_cases())
def test_a_model_and_its_graph_work_on_a_gpu_that_is_not_the_current_one(name, small, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = small(name, drop_path_rate=0.0, deep_supervision=False).train()
    x = torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(0))

    def squares(outputs, target):
        return (outputs - target).square().mean()

    found = []
    for device in ("cuda:0", "cuda:1"):
        model.to(device).zero_grad(set_to_none=True)
        value = squares(model(x.to(device)), 1.0)
        value.backward()
        gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        found.append([value.detach().cpu(), *gradients])
    target = torch.ones((), device="cuda:1")
    step = GraphedStep(model, squares, torch.zeros_like(x, device="cuda:1"), target)
    value = step(x.to("cuda:1"), target)
    found.append([value.cpu(), *(p.grad.cpu() for p in model.parameters() if p.grad is not None)])
    assert torch.cuda.current_device() == 0
    norm = torch.linalg.vector_norm
    for elsewhere in found[1:]:
        for actual, expected in zip(elsewhere, found[0], strict=True):
            assert norm(actual - expected) <= 1e-3 * norm(expected) + 1e-5
