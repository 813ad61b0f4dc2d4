"""The loss compared with golden values of the original implementation, and its other guarantees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swin_umamba.losses import (
    DeepSupervisionLoss,
    dice_cross_entropy,
    resize_nearest,
    scale_weights,
)

GOLDEN = ("loss_swin_umamba.npz", "loss_swin_umamba_d.npz")


def _golden(path: Path) -> tuple[dict[str, Any], list[Tensor], list[Tensor], Any]:
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    batch, classes, height, width = meta["logit_shape"]
    logits = []
    for scale in meta["scales"]:
        rng = np.random.default_rng(meta["seed"] + scale)
        shape = (batch, classes, height // scale, width // scale)
        logits.append(torch.from_numpy(rng.standard_normal(shape).astype(np.float32)))
    targets = [torch.from_numpy(data[f"target{i}"]) for i in range(len(logits))]
    return meta, logits, targets, data


@pytest.mark.parametrize("name", GOLDEN)
def test_value_and_gradient_equal_the_release_in_float64(fixtures: Path, name: str) -> None:
    meta, logits, targets, data = _golden(fixtures / name)
    outputs = [out.double().requires_grad_() for out in logits]
    loss = DeepSupervisionLoss(meta["weights"], meta["batch_dice"])(outputs, targets)
    loss.backward()
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-10)
    gradient = outputs[0].grad
    assert gradient is not None
    error = np.linalg.norm(gradient.numpy() - data["grad0"]) / np.linalg.norm(data["grad0"])
    assert error < 1e-10


@pytest.mark.parametrize("name", GOLDEN)
def test_value_and_gradient_equal_the_release_in_float32(fixtures: Path, name: str) -> None:
    meta, logits, targets, data = _golden(fixtures / name)
    outputs = [out.requires_grad_() for out in logits]
    loss = DeepSupervisionLoss(meta["weights"], meta["batch_dice"])(outputs, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-5)
    gradient = outputs[0].grad
    assert gradient is not None
    error = np.linalg.norm(gradient.numpy() - data["grad0"]) / np.linalg.norm(data["grad0"])
    assert error < 1e-5


def test_default_weights_are_those_of_the_release(fixtures: Path) -> None:
    meta, logits, targets, data = _golden(fixtures / GOLDEN[0])
    outputs = [out.double() for out in logits]
    assert DeepSupervisionLoss()(outputs, targets).item() == pytest.approx(data["loss"].item())
    assert scale_weights(4) == pytest.approx(meta["weights"])


def test_batch_dice_changes_the_value(fixtures: Path) -> None:
    _, logits, targets, _ = _golden(fixtures / GOLDEN[0])
    values = {DeepSupervisionLoss(batch_dice=b)(logits, targets).item() for b in (True, False)}
    assert len(values) == 2


def test_equals_monai_up_to_its_added_one() -> None:
    losses = pytest.importorskip("monai.losses")
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 8, 9).double(), torch.randint(0, 3, (2, 1, 8, 9))
    for batch in (True, False):
        theirs = losses.DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            smooth_nr=1e-5,
            smooth_dr=1e-5,
            batch=batch,
        )(logits, target)
        ours = dice_cross_entropy(logits, target, batch)
        assert ours.item() + 1 == pytest.approx(theirs.item(), rel=1e-12)


def test_one_target_is_taken_to_every_scale() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 16, 12))
    outputs = [torch.randn(2, 3, 16 // s, 12 // s) for s in (1, 2, 4)]
    each = [resize_nearest(target, out.shape[-2:]) for out in outputs]
    loss_of = DeepSupervisionLoss((0.5, 0.3, 0.2))
    assert loss_of(outputs, target).item() == loss_of(outputs, each).item()
    assert loss_of(outputs, target[:, None]).item() == loss_of(outputs, each).item()


def test_resize_takes_the_pixel_at_the_centre() -> None:
    target = torch.arange(6 * 9).view(1, 6, 9)
    assert resize_nearest(target, (2, 3)).tolist() == [[[10, 13, 16], [37, 40, 43]]]
    assert resize_nearest(target, (3, 9))[0, :, 0].tolist() == [9, 27, 45]
    floats = torch.nn.functional.interpolate(
        target[None].double(), size=(4, 5), mode="nearest-exact"
    )
    assert torch.equal(resize_nearest(target, (4, 5)), floats[0].long())


def test_head_of_weight_zero_stays_in_the_graph_and_adds_nothing() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 4, 4))
    first, last = torch.randn(1, 2, 4, 4), torch.full((1, 2, 2, 2), torch.nan)
    scale = torch.ones((), requires_grad=True)
    head = torch.ones((), requires_grad=True)
    loss = DeepSupervisionLoss((1.0, 0.0))([first * scale, last + head], target)
    loss.backward()
    assert torch.isfinite(loss)
    assert head.grad is not None
    assert head.grad.item() == 0.0
    assert scale.grad is not None
    assert scale.grad.item() != 0.0


def test_single_output_has_weight_one() -> None:
    logits, target = torch.randn(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64)
    assert DeepSupervisionLoss()(logits, target) == dice_cross_entropy(logits, target)
    assert DeepSupervisionLoss()(logits, target) == DeepSupervisionLoss((1.0,))([logits], target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_give_a_float32_loss(dtype: torch.dtype) -> None:
    logits = (50 * torch.randn(2, 3, 64, 64)).to(dtype).requires_grad_()
    target = torch.randint(0, 3, (2, 64, 64))
    loss = DeepSupervisionLoss()(logits, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == dice_cross_entropy(logits.float(), target).item()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_class_that_is_nowhere_is_finite_and_perfect() -> None:
    logits = torch.zeros(1, 3, 4, 4).double()
    logits[:, 0] = 100.0
    loss = dice_cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    assert loss.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_pixels_without_truth_are_left_out(batch_dice: bool) -> None:
    """As if the ignored part were cut off the images; also in the gradient."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 8, 9))
    target[:, :, 6:] = -1
    loss = dice_cross_entropy(logits, target, batch_dice)
    loss.backward()
    gradient = logits.grad
    assert gradient is not None
    assert (gradient[..., 6:] == 0).all()
    cut = logits.detach()[..., :6].requires_grad_()
    expected = dice_cross_entropy(cut, target[..., :6], batch_dice)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient[..., :6], cut.grad, rtol=1e-10, atol=1e-14)


def test_a_batch_without_any_truth_has_no_gradient() -> None:
    logits = [torch.randn(1, 2, n, n, requires_grad=True) for n in (4, 2)]
    loss = DeepSupervisionLoss((0.5, 0.5))(logits, torch.full((1, 4, 4), -1))
    loss.backward()
    assert torch.isfinite(loss)
    for x in logits:
        assert x.grad is not None
        assert x.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda: DeepSupervisionLoss(()), ValueError, "weights"),
        (lambda: DeepSupervisionLoss((0.0,)), ValueError, "weights"),
        (lambda: DeepSupervisionLoss((1.0, -0.1)), ValueError, "weights"),
        (lambda: scale_weights(0), ValueError, "scales"),
        (
            lambda: DeepSupervisionLoss()([torch.zeros(1, 2, 4, 4)], torch.zeros(1, 4, 4).long()),
            ValueError,
            "outputs: got 1, expected 4",
        ),
        (
            lambda: DeepSupervisionLoss((1.0,))([torch.zeros(1, 2, 4, 4)], []),
            ValueError,
            "targets",
        ),
        (
            lambda: dice_cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4)),
            TypeError,
            "target: got torch.float32",
        ),
        (
            lambda: dice_cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 5).long()),
            ValueError,
            "target",
        ),
        (
            lambda: dice_cross_entropy(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4).long()),
            ValueError,
            "target",
        ),
        (
            lambda: dice_cross_entropy(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4).long()),
            ValueError,
            "logits",
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        call()
