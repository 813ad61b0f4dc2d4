"""Everything training relies on: gradients, freezing, drop path, initial values, precision."""

from __future__ import annotations

import pytest
import torch
from model_cases import build, model_cases
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_umamba.models.drop_path import DropPath, linear_rates

each_model = pytest.mark.parametrize("name", model_cases())
V1_UNUSED = ("vssm_encoder.layers.2.", "vssm_encoder.downsamples.1.")  # of the small model


def backward(model, x):
    model.zero_grad(set_to_none=True)
    sum((out.float() ** 2).mean() for out in model(x)).backward()


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@each_model
def test_gradients_reach_every_trainable_parameter(name, small, image):
    model = small(name, drop_path_rate=0.0).train()
    backward(model, image(2, 2, 32, 48))
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 0, key
        else:
            assert name == "swin_umamba_v1", key
            assert key.startswith(V1_UNUSED), key


@each_model
def test_gradients_do_not_explode_where_an_image_is_zero(name):
    """Padding: where every channel is 0 from norm to norm, each multiplies the gradient by 316."""
    torch.manual_seed(0)
    model = build(
        name, in_channels=1, out_channels=3, depths=(2, 2, 2, 2), drop_path_rate=0.0
    ).train()
    x = torch.randn(1, 1, 64, 64)
    norms = []
    for rows in (64, 32):
        x[:, :, rows:] = 0
        backward(model, x)
        norms.append(
            nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        )
    assert norms[1] < 5 * norms[0]


@each_model
def test_freezing_spares_the_patch_embedding(name, small, image):
    model = small(name).train()
    before = trainable(model)
    encoder = {key for key in before if key.startswith("vssm_encoder.")}
    kept = {key for key in encoder if key.startswith("vssm_encoder.patch_embed.")}
    assert len(kept) == (8 if "+" in name else 4)

    model.freeze_encoder()
    assert trainable(model) == before - encoder | kept
    assert model.training
    backward(model, image(2, 2, 32, 32))
    assert {key for key, p in model.named_parameters() if p.grad is not None} == trainable(model)

    model.unfreeze_encoder()
    assert trainable(model) == before


def test_v1_never_trains_nor_runs_its_unused_stage(small, image):
    model = small("swin_umamba_v1")
    ran = []
    for i, layer in enumerate(model.vssm_encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    model(image(1, 2, 32, 32))
    assert ran == [0, 1]
    assert not any(key.startswith(V1_UNUSED) for key in trainable(model))
    model.unfreeze_encoder()
    assert not any(key.startswith(V1_UNUSED) for key in trainable(model))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.3)
    x = torch.rand(20000, 2, 1, 3) + 1
    out = drop(x)
    ratio = (out / x).flatten(1)
    kept = ratio[:, 0] != 0
    assert torch.allclose(ratio[kept], torch.tensor(1 / 0.7))
    assert not ratio[~kept].any()
    deviation = (0.3 * 0.7 / 20000) ** 0.5
    assert abs(kept.float().mean().item() - 0.7) < 4 * deviation


def test_drop_path_rests_in_eval_mode_and_at_rate_zero():
    x = torch.rand(4, 3)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    assert DropPath(0.5).train()(x.bfloat16()).dtype == torch.bfloat16


def test_linear_rates():
    flat = [rate for stage in linear_rates(0.0, 0.2, (2, 2, 9, 2)) for rate in stage]
    assert flat == pytest.approx([0.2 * i / 14 for i in range(15)])
    assert linear_rates(0.2, 0.0, (1,)) == [[0.2]]


@each_model
def test_drop_rates_are_the_releases(name):
    with FakeTensorMode():
        model = build(name, in_channels=1, out_channels=2)
    rates = [m.rate for m in model.vssm_encoder.modules() if isinstance(m, DropPath)]
    last = sum(len(layer.blocks) for layer in model.vssm_encoder.layers) - 1
    assert last == (13 if "+" in name else 14)
    assert rates == pytest.approx([0.2 * i / last for i in range(last + 1)])
    if hasattr(model, "decoder"):
        rates = [m.rate for m in model.decoder.modules() if isinstance(m, DropPath)]
        assert rates == pytest.approx([0.2 * (5 - i) / 5 for i in range(6)])


@each_model
def test_drop_path_acts_in_training_only(name, small, image):
    model = small(name, drop_path_rate=0.9)
    x = image(2, 2, 32, 32)
    torch.manual_seed(0)
    model.train()
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


@each_model
def test_encoder_linears_start_at_std_002(name, small):
    encoder = small(name, dims=(32, 64), depths=(1, 1)).vssm_encoder
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_convolutions_of_the_d_model_start_as_nnunets(small):
    model = small("swin_umamba_d", dims=(32, 64), depths=(1, 1), in_channels=8, out_channels=64)
    gain = nn.init.calculate_gain("leaky_relu", 0.01)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 7
    for conv in convolutions:
        fan_in = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx(gain * fan_in**-0.5, rel=0.2)
        assert conv.bias.any() == (conv is model.vssm_encoder.patch_embed.proj)
    bound = model.decoder.concat_back_dim[0].weight.abs().max()  # PyTorch's own: uniform
    assert bound.item() == pytest.approx(64**-0.5, rel=0.02)


@each_model
def test_bfloat16_autocast_trains(name, small, image):
    model = small(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(image(2, 2, 33, 40))
        loss = sum((out.float() ** 2).mean() for out in outputs)
    loss.backward()
    assert all(out.isfinite().all() for out in outputs)
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
