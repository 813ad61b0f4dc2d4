"""nnU-Net's 2-D augmentation, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from swin_umamba.common.records import Listed, Positive, Record, Share, record

Degrees = Annotated[float, Field(ge=0, le=360)]
_Size = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[_Size, _Size], Listed]
PositiveRange = Annotated[tuple[Positive, Positive], Listed]


@record
class Augmentation(Record):
    """Probability and range of every transform; the defaults are nnU-Net's.

    `p_...` is the probability per patch, `..._channel` that of each of its channels if applied.
    Ranges around 1 (brightness, contrast, gamma) are sampled below or above 1 with equal
    probability.
    """

    WHAT: ClassVar[str] = "augmentation"

    p_rotation: Share = 0.2
    rotation: Degrees = 180.0  # degrees in either direction
    rotation_oblong: Degrees = 15.0  # for patches with one side over 1.5 times the other
    p_scaling: Share = 0.2
    scaling: PositiveRange = (0.7, 1.4)  # size of the region shown in the patch: above 1 zooms out
    p_noise: Share = 0.1
    noise: Range = (0.0, 0.1)  # deviation
    p_blur: Share = 0.2
    p_blur_channel: Share = 0.5
    blur: Range = (0.5, 1.0)  # standard deviation in pixels, per axis
    p_brightness: Share = 0.15
    brightness: Range = (0.75, 1.25)  # factor
    p_contrast: Share = 0.15
    contrast: Range = (0.75, 1.25)  # factor for the distance to the mean, clipped to the old range
    p_low_resolution: Share = 0.25
    p_low_resolution_channel: Share = 0.5
    low_resolution: PositiveRange = (0.5, 1.0)  # downsampling factor of the intermediate image
    p_gamma_inverted: Share = 0.1  # inverted; both preserve mean and deviation
    p_gamma: Share = 0.3
    gamma: PositiveRange = (0.7, 1.5)  # exponent
    p_mirror: Share = 0.5  # for each of the two axes

    def __post_init__(self) -> None:
        for name in self.field_names():
            value = getattr(self, name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{name}: got {value}, expected the lower number first")


def draw_matrix(
    config: Augmentation, size: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.float64] | None:
    """A rotation and scaling matrix (2, 2) from patch (y, x) to image (y, x); None for identity."""
    angle, scale = 0.0, 1.0
    if rng.random() < config.p_rotation:
        oblong = max(size) > 1.5 * min(size)
        angle = math.radians(config.rotation_oblong if oblong else config.rotation)
        angle = rng.uniform(-angle, angle)
    if rng.random() < config.p_scaling:
        scale = rng.uniform(*config.scaling)
    if angle == 0 and scale == 1:
        return None
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, -s], [s, c]])


def cut(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[Any],
    corner: tuple[int, int],
    size: tuple[int, int],
    matrix: npt.NDArray[np.float64] | None = None,
) -> tuple[Tensor, Tensor]:
    """The window (C, h, w) float32 of an image (C, H, W), and the window (h, w) int64 of its mask.

    corner: upper left, may lie outside; pixels outside of the image are 0 in both. matrix: rotates
    and scales the window about its center (bilinear; nearest for the mask). Reads only the part of
    the image that the window needs.
    """
    if matrix is None:
        return torch.from_numpy(_window(image, corner, size)), torch.from_numpy(
            _window(mask, corner, size).astype(np.int64)
        )
    centre = np.array([at + (n - 1) / 2 for at, n in zip(corner, size, strict=True)])
    reach = np.abs(matrix) @ ((np.array(size) - 1) / 2) + 1
    full = np.array(mask.shape)
    low = np.clip(np.floor(centre - reach).astype(int), 0, full - 1)
    high = np.clip(np.ceil(centre + reach).astype(int) + 1, low + 1, full)
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    # From normalized patch coordinates (x, y) to those of the box, as affine_grid expects.
    inner = high - low
    theta = np.empty((2, 3))
    theta[:, :2] = (matrix * np.array(size)[None, :] / inner[:, None])[::-1, ::-1]
    theta[:, 2] = ((2 * (centre - low) + 1) / inner - 1)[::-1]
    grid = F.affine_grid(torch.from_numpy(theta).float()[None], [1, 1, *size], align_corners=False)
    turned = _sample(np.array(image[(slice(None), *box)]), grid, "bilinear")
    labels = _sample(mask[box].astype(np.float32)[None], grid, "nearest")
    return turned, labels[0].long()


def vary(image: Tensor, config: Augmentation, rng: np.random.Generator) -> Tensor:
    """Change the intensities of a patch (C, h, w) float32, in nnU-Net's order; out of place."""
    if rng.random() < config.p_noise:
        noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
        image = image + rng.uniform(*config.noise) * noise
    if rng.random() < config.p_blur:
        image = _each(image, config.p_blur_channel, rng, lambda x: _blur(x, config, rng))
    if rng.random() < config.p_brightness:
        image = _each(image, 1.0, rng, lambda x: x * _around_one(config.brightness, rng))
    if rng.random() < config.p_contrast:
        image = _each(image, 1.0, rng, lambda x: _contrast(x, config, rng))
    if rng.random() < config.p_low_resolution:
        image = _each(
            image, config.p_low_resolution_channel, rng, lambda x: _coarsen(x, config, rng)
        )
    if rng.random() < config.p_gamma_inverted:
        image = _each(image, 1.0, rng, lambda x: _gamma(x, True, config, rng))
    if rng.random() < config.p_gamma:
        image = _each(image, 1.0, rng, lambda x: _gamma(x, False, config, rng))
    return image


def mirror(
    image: Tensor, mask: Tensor, config: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Flip a patch (C, h, w) and its mask (h, w) together."""
    axes = [axis for axis in (-2, -1) if rng.random() < config.p_mirror]
    return (image.flip(axes), mask.flip(axes)) if axes else (image, mask)


def _each(
    image: Tensor,
    probability: float,
    rng: np.random.Generator,
    change: Callable[[Tensor], Tensor],
) -> Tensor:
    channels = [change(x) if rng.random() < probability else x for x in image]
    return torch.stack(channels)


def _around_one(limits: Range, rng: np.random.Generator) -> float:
    low, high = limits
    if high <= 1 or (low < 1 and rng.random() < 0.5):
        return float(rng.uniform(low, min(high, 1.0)))
    return float(rng.uniform(max(low, 1.0), high))


def _blur(x: Tensor, config: Augmentation, rng: np.random.Generator) -> Tensor:
    for axis in (0, 1):
        x = _smoothed(x, rng.uniform(*config.blur), axis)
    return x


def _smoothed(x: Tensor, sigma: float, axis: int) -> Tensor:
    """Gaussian blur, deviation in pixels, along one axis of (h, w), mirrored at the borders."""
    size = 6 * sigma + 0.5
    whole = round(size)
    if whole % 2 == 0:  # the nearest odd number
        whole += 1 if size >= whole else -1
    reach = min(whole // 2, x.shape[axis] - 1)
    places = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view((1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1))
    border = [0, 0, reach, reach] if axis == 0 else [reach, reach, 0, 0]
    return F.conv2d(F.pad(x[None, None], border, mode="reflect"), kernel)[0, 0]


def _contrast(x: Tensor, config: Augmentation, rng: np.random.Generator) -> Tensor:
    low, high = x.aminmax()
    mean = x.mean()
    return ((x - mean) * _around_one(config.contrast, rng) + mean).clamp_(low, high)


def _coarsen(x: Tensor, config: Augmentation, rng: np.random.Generator) -> Tensor:
    factor = rng.uniform(*config.low_resolution)
    size = [max(round(n * factor), 1) for n in x.shape]
    coarse = F.interpolate(x[None, None], size, mode="nearest-exact")
    return F.interpolate(coarse, tuple(x.shape), mode="bilinear")[0, 0]


def _gamma(x: Tensor, inverted: bool, config: Augmentation, rng: np.random.Generator) -> Tensor:
    """MONAI's AdjustContrast, without the seconds that every process takes to import MONAI."""
    exponent = _around_one(config.gamma, rng)
    sign = -1.0 if inverted else 1.0
    y = sign * x
    low, span = y.min(), y.max() - y.min()
    bent = ((y - low) / (span + 1e-7)) ** exponent * span + low
    bent = bent - bent.mean()
    return sign * (bent / (bent.std() + 1e-8) * y.std() + y.mean())


def _sample(values: npt.NDArray[np.float32], grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(torch.from_numpy(values)[None], grid, mode, "zeros", align_corners=False)[
        0
    ]


def _window(
    values: npt.NDArray[Any], corner: tuple[int, int], size: tuple[int, int]
) -> npt.NDArray[Any]:
    """A copy of a window of the last two axes, 0 outside."""
    found = np.zeros((*values.shape[:-2], *size), values.dtype)
    start = [max(at, 0) for at in corner]
    stop = [max(at + n, s) for at, n, s in zip(corner, size, start, strict=True)]
    inside = values[..., start[0] : stop[0], start[1] : stop[1]]
    rows, columns = (s - at for s, at in zip(start, corner, strict=True))
    found[..., rows : rows + inside.shape[-2], columns : columns + inside.shape[-1]] = inside
    return found
