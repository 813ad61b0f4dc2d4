"""The network's input: every image once per epoch, augmented with numbers from the iteration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretrain_helpers import coloured_tiles, tiny_pretraining
from torch import Tensor

from swin_umamba.loop.world import World
from swin_umamba.pretrain.batches import Batches
from swin_umamba.pretrain.draws import Draws, Order, draw, draw_for_scores, squares
from swin_umamba.pretrain.store import Store
from swin_umamba.pretrain.tasks import ClassLoss, MaskedLoss
from swin_umamba.pretrain.views import Views

WHOLE = slice(None)
PLAIN = {"colour": 0.0, "mixup": 0.0, "flip": 0.0, "crop": (1.0, 1.0), "aspect": 1.0}
CPU = torch.device("cpu")


def _views(classes: int = 3, **changes: object) -> Views:
    config = tiny_pretraining(**changes)
    return Views(config, (100.0,) * 3, (50.0,) * 3, classes, CPU)


def _seen(views: Views, draws: Draws, tiles: Tensor) -> tuple[Tensor, Tensor]:
    return views(tiles, torch.arange(len(tiles)) % 3, draws)


def _tiles(count: int = 8) -> Tensor:
    return torch.from_numpy(coloured_tiles(count).pixels)


@pytest.mark.parametrize("batch", [3, 4, 25])
def test_every_image_comes_once_an_epoch(batch: int) -> None:
    order = Order(np.arange(100, 112), batch, seed=1)
    seen = np.concatenate([order.batch(i) for i in range(24)])
    for epoch in range(len(seen) // 12):
        part = seen[12 * epoch : 12 * epoch + 12]
        assert sorted(part) == list(range(100, 112))
    assert not np.array_equal(seen[:12], seen[12:24])
    again = Order(np.arange(100, 112), batch, seed=1)
    assert np.array_equal(again.batch(7), order.batch(7))
    assert not np.array_equal(Order(np.arange(100, 112), batch, seed=2).batch(0), order.batch(0))


def test_parts_of_a_batch_have_the_draws_of_the_whole() -> None:
    for task in ("classes", "pixels"):
        config = tiny_pretraining(task=task)
        whole = draw(config, 5, WHOLE)
        parts = [draw(config, 5, slice(4 * rank, 4 * rank + 4)) for rank in (0, 1)]
        for name in ("views", "colours", "shares", "masks"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(joined, getattr(whole, name))
        assert not np.array_equal(draw(config, 6, WHOLE).views, whole.views)


def test_whole_images_are_only_normalised() -> None:
    views = _views(**PLAIN, smoothing=0.0)
    tiles = _tiles()
    images, targets = _seen(views, draw(views.config, 0, WHOLE), tiles)
    torch.testing.assert_close(images, (tiles.float() - 100) / 50, rtol=1e-4, atol=1e-4)
    assert torch.equal(targets.argmax(1), torch.arange(8) % 3)
    assert torch.equal(targets.sum(1), torch.ones(8))


def test_flips_mirror() -> None:
    views = _views(**{**PLAIN, "flip": 1.0, "flip_vertical": 1.0})
    tiles = _tiles()
    images, _ = _seen(views, draw(views.config, 0, WHOLE), tiles)
    expected = (tiles.float() - 100) / 50
    torch.testing.assert_close(images, expected.flip(2, 3), rtol=1e-4, atol=1e-4)


def test_crops_stay_within_the_image_and_have_their_area() -> None:
    config = tiny_pretraining(batch_size=512, crop=(0.3, 0.8), image_size=(16, 16))
    views = np.abs(draw(config, 0, WHOLE).views.astype(np.float64))
    scale_x, scale_y = views[:, 0, 0], views[:, 1, 1]
    assert (scale_x + views[:, 0, 2] <= 1 + 1e-6).all()
    assert (scale_y + views[:, 1, 2] <= 1 + 1e-6).all()
    inside = (scale_x < 1) & (scale_y < 1)
    area = (scale_x * scale_y)[inside]
    assert 0.3 <= area.min() < 0.35
    assert 0.7 < area.max() <= 0.8 + 1e-6
    aspects = (scale_x / scale_y)[inside]
    assert 0.75 - 1e-6 <= aspects.min() < 0.8
    assert 1.25 < aspects.max() <= 4 / 3 + 1e-6


def test_colours_change_each_image_by_itself() -> None:
    views = _views(**{**PLAIN, "colour": 0.5})
    draws = draw(views.config, 0, WHOLE)
    tiles = _tiles()
    images, _ = _seen(views, draws, tiles)
    plain = (tiles.float() - 100) / 50
    brightness, contrast, saturation = torch.from_numpy(draws.colours)[3]
    grey = plain[3].mean(0, keepdim=True)
    expected = (grey + (plain[3] - grey) * saturation) * contrast + brightness
    torch.testing.assert_close(images[3], expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(draws.colours, axis=0).min() > 0.1


def test_normalising_each_image_leaves_mean_0_and_deviation_1() -> None:
    views = _views(**PLAIN, normalization="image")
    images, _ = _seen(views, draw(views.config, 0, WHOLE), _tiles())
    torch.testing.assert_close(images.mean((2, 3)), torch.zeros(8, 3), rtol=0, atol=1e-4)
    torch.testing.assert_close(images.std((2, 3), correction=0), torch.ones(8, 3))


def test_neighbours_are_mixed_as_their_targets_are() -> None:
    views = _views(**{**PLAIN, "mixup": 1.0}, smoothing=0.1)
    draws = draw(views.config, 0, WHOLE)
    tiles = _tiles()
    images, targets = _seen(views, draws, tiles)
    share = float(draws.shares[2])
    assert 0 < share < 1
    assert draws.shares[3] == draws.shares[2]
    plain = (tiles.float() - 100) / 50
    expected = share * plain[2] + (1 - share) * plain[3]
    torch.testing.assert_close(images[2], expected, rtol=1e-4, atol=1e-4)
    want = torch.full((3,), 0.1 / 3)
    want[2] += 0.9 * share  # the class of tile 2, and of its neighbor 3
    want[0] += 0.9 * (1 - share)
    torch.testing.assert_close(targets[2], want)
    scored, sharp = views(
        tiles, torch.arange(8) % 3, draw_for_scores(views.config, np.arange(8)), soften=False
    )
    torch.testing.assert_close(scored, plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(sharp, torch.eye(3)[torch.arange(8) % 3])


@pytest.mark.parametrize(("size", "side"), [((16, 16), 4), ((16, 24), 8), ((18, 20), 8)])
def test_the_share_of_squares_is_masked(size: tuple[int, int], side: int) -> None:
    views = _views(**PLAIN, task="pixels", image_size=size, mask_patch=side, mask_share=0.5)
    draws = draw(views.config, 0, WHOLE)
    both, same = views(_tiles(), None, draws)
    assert both is same
    masks = both[:, 3]
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    corners = masks[:, ::side, ::side]
    assert corners[0].numel() == squares(views.config)
    assert (corners.sum((1, 2)) == round(0.5 * squares(views.config))).all()
    height, width = size
    whole = corners.repeat_interleave(side, 1).repeat_interleave(side, 2)
    assert torch.equal(whole[:, :height, :width], masks)
    assert len({tuple(m.flatten().tolist()) for m in corners}) > 1


def test_scored_masks_stay_the_same() -> None:
    config = tiny_pretraining(task="pixels", mask_patch=4)
    first = draw_for_scores(config, np.array([3, 5]))
    second = draw_for_scores(config, np.array([5]))
    assert np.array_equal(first.masks[1], second.masks[0])


@pytest.mark.parametrize("resident", [True, False])
def test_stores_give_what_was_asked_for(resident: bool) -> None:
    pixels = coloured_tiles(9).pixels
    store = Store(pixels, CPU, resident=resident)
    first, second = np.array([4, 1, 1, 8]), np.array([0])
    store.ask(first)
    store.ask(second)
    for indices in (first, second, first):  # the last without asking
        taken, waited = store.take(indices)
        assert (taken.numpy() == pixels[indices]).all()
        assert waited >= 0
    store.close()


def test_a_batch_made_ahead_is_the_same() -> None:
    config = tiny_pretraining()
    ahead, now = (Batches(coloured_tiles(), config, World("cpu")) for _ in range(2))
    for iteration in (0, 1, 5):
        ahead.prepare(iteration)
        for a, b in zip(ahead.read(iteration)[0], now.read(iteration)[0], strict=True):
            assert torch.equal(a, b)
    ahead.prepare(6)
    for a, b in zip(ahead.read(2)[0], now.read(2)[0], strict=True):  # after going back
        assert torch.equal(a, b)
    ahead.close()
    now.close()


def test_images_held_out_are_never_trained_on() -> None:
    config = tiny_pretraining(held_out=0.25)
    batches = Batches(coloured_tiles(), config, World("cpu"))
    trained = {i for n in range(20) for i in batches._order.batch(n).tolist()}
    assert len(batches.held_out) == 6
    assert trained == set(range(24)) - set(batches.held_out.tolist())
    batches.close()


def test_losses_are_those_of_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator)
    classes = torch.tensor([0, 1, 2, 0, 1])
    sharp = torch.eye(3)[classes]
    torch.testing.assert_close(
        ClassLoss()(logits, sharp), torch.nn.functional.cross_entropy(logits, classes)
    )
    image, told = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2] = 1
    mask[1, :, :, 3] = 1
    picked = mask.bool().expand(-1, 3, -1, -1)
    expected = (told - image).abs()[picked].mean()
    torch.testing.assert_close(MaskedLoss()(told, torch.cat((image, mask), 1)), expected)
    spoilt = torch.where(picked, told, 1e6)  # pixels that are seen do not count
    torch.testing.assert_close(MaskedLoss()(spoilt, torch.cat((image, mask), 1)), expected)
