"""Any image size, any channels, widths and depths; deep supervision on and off."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from model_cases import model_cases

each_model = pytest.mark.parametrize("name", model_cases())


@each_model
@pytest.mark.parametrize("size", [(65, 97), (31, 33), (1, 1), (1, 40), (32, 16), (30, 64)])
def test_any_size(name, size, small, image):
    model = small(name)
    with torch.no_grad():
        outputs = model(image(1, 2, *size))
    height, width = size
    expected = [(1, 3, -(-height // s), -(-width // s)) for s in model.scales]
    assert [tuple(out.shape) for out in outputs] == expected
    assert all(out.isfinite().all() for out in outputs)


@each_model
def test_padding_is_zeros_at_bottom_and_right(name, small, image):
    model = small(name).eval()
    x = image(2, 2, 21, 35)
    with torch.no_grad():
        outputs = model(x)
        height, width = (-(-n // model.stride) * model.stride for n in (21, 35))
        padded = model(F.pad(x, (0, width - 35, 0, height - 21)))
    for out, full in zip(outputs, padded, strict=True):
        assert torch.equal(out, full[..., : out.shape[-2], : out.shape[-1]])


@pytest.mark.parametrize(
    ("name", "scales"),
    [
        ("swin_umamba", (1, 2, 4, 8)),
        ("swin_umamba_v1", (1, 2, 4, 8)),
        ("swin_umamba_d", (1, 4, 8, 16)),
    ],
)
def test_scales_of_the_released_depth(name, scales, small):
    model = small(name, dims=(4, 6, 8, 10), depths=(1, 1, 1, 1))
    assert model.scales == scales
    assert model.stride == 32


@each_model
@pytest.mark.parametrize(
    ("dims", "depths", "d_state", "in_channels", "out_channels"),
    [((4, 6), (1, 2), 1, 1, 1), ((5, 7, 9, 11, 13), (1, 1, 1, 1, 1), 3, 4, 2)],
)
def test_any_width_and_depth(name, dims, depths, d_state, in_channels, out_channels, small, image):
    model = small(
        name,
        dims=dims,
        depths=depths,
        d_state=d_state,
        in_channels=in_channels,
        out_channels=out_channels,
    )
    outputs = model(image(1, in_channels, 64, 64))
    assert [tuple(out.shape) for out in outputs] == [
        (1, out_channels, 64 // s, 64 // s) for s in model.scales
    ]
    assert len(outputs) == len(dims)
    assert [len(layer.blocks) for layer in model.vssm_encoder.layers] == list(depths)


def test_own_arguments_of_the_models(small, image):
    wide = small("swin_umamba", stem_dim=5)
    assert wide.stem[0].out_channels == 5
    coarse = small("swin_umamba_d", patch_size=2, decoder_depths=(1, 3))
    assert [len(stage.blocks) for stage in coarse.decoder.stages] == [1, 3]
    assert coarse.scales == (1, 2, 4)
    assert [out.shape[-1] for out in coarse(image(1, 2, 16, 16))] == [16, 8, 4]


@each_model
def test_deep_supervision_can_be_switched(name, small, image):
    model = small(name).eval()
    x = image(2, 2, 32, 33)
    outputs = model(x)
    assert isinstance(outputs, list)
    model.deep_supervision = False
    single = model(x)
    assert isinstance(single, torch.Tensor)
    assert torch.equal(single, outputs[0])
    off = small(name, deep_supervision=False).eval()
    assert torch.equal(off(x), single)
    assert off.state_dict().keys() == model.state_dict().keys()


@each_model
def test_memory_format_does_not_matter(name, small, image):
    model = small(name).double().eval()
    x = image(2, 2, 32, 32, dtype=torch.float64)
    plain = model(x)
    model.to(memory_format=torch.channels_last)
    for out, reference in zip(model(x.to(memory_format=torch.channels_last)), plain, strict=True):
        assert (out - reference).norm() <= 1e-10 * reference.norm()


@each_model
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(2, 32, 32),
            ValueError,
            r"x: got shape \(2, 32, 32\), expected \(B, 2, H, W\)",
        ),
        (torch.zeros(1, 3, 32, 32), ValueError, r"x: got shape \(1, 3, 32, 32\)"),
        (torch.zeros(1, 2, 0, 32), ValueError, "H and W at least 1"),
        (torch.zeros(1, 2, 32, 32, dtype=torch.uint8), TypeError, "x: got torch.uint8"),
    ],
)
def test_bad_input(name, x, error, message, small):
    with pytest.raises(error, match=message):
        small(name)(x)
