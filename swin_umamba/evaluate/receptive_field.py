"""How far a network sees: the effective receptive field (arXiv:1701.04128)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from swin_umamba.common.devices import pick_device
from swin_umamba.data import open_dataset
from swin_umamba.data.prepare.prepared import cached_cases
from swin_umamba.errors import UserError
from swin_umamba.models import SegmentationModel
from swin_umamba.models.loading import load_model
from swin_umamba.runs.run import Run

Field = npt.NDArray[np.float64]
SHARES = (0.5, 0.9, 0.99)
IMAGES = 16


def effective_receptive_field(
    network: Callable[[Tensor], Tensor], images: Iterable[Tensor]
) -> Field:
    """How much each pixel of an image affects the output at its center: (H, W), normalized to sum
    1.

    network: returns a map (1, K, h, w), such as logits, for an image (1, C, H, W). images: of one
    size. The gradient of the highest of the K center values is taken; its absolute values are
    summed over channels, and each image counts alike. Raises ValueError without images, or if no
    gradient is finite and nonzero.
    """
    total: Field | None = None
    for image in images:
        seen = image.detach().requires_grad_()
        with torch.enable_grad():
            logits = network(seen)
            centre = logits[0, :, logits.shape[2] // 2, logits.shape[3] // 2].amax()
        (gradient,) = torch.autograd.grad(centre, seen)
        field = gradient[0].double().abs().sum(0).cpu().numpy()
        whole = field.sum()
        if np.isfinite(whole) and whole > 0:
            total = field / whole + (0 if total is None else total)
    if total is None:
        raise ValueError("images: none of them has a gradient at its center")
    found: Field = total / total.sum()
    return found


def side_of(field: Field, share: float) -> float:
    """The side of the smallest window around the center that contains a given share of a field.

    As a fraction of the field's side, 0..1.
    """
    height, width = field.shape
    steps = max(height, width)
    for step in range(1, steps + 1):
        part: float = step / steps
        rows, columns = (_middle(n, part) for n in (height, width))
        if float(field[rows, columns].sum()) >= share * float(field.sum()) * (1 - 1e-12):
            return part
    return 1.0


def field_of_run(
    folder: Path,
    *,
    dataset: Path | None = None,
    size: tuple[int, int] | None = None,
    images: int = IMAGES,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Field:
    """The effective receptive field of a run's best weights on its validation images.

    dataset: where the run's dataset is now, if it was moved. size: height and width of the central
    crops; by default the patch size. images: how many, evenly spaced. on_progress: called with the
    number of finished images and the total. Raises UserError if the run was not trained from a
    dataset, or has no validation images.
    """
    if size is not None and min(size) < 1:
        raise UserError(f"size: got {size}, expected two numbers above 0")
    run = Run.open(folder)
    plan, split = run.require_plan(), run.split
    place = dataset or (None if run.config.dataset is None else Path(run.config.dataset))
    if split is None or not split.val or place is None:
        raise UserError(f"{folder} has no validation images")
    model = load_model(run.weights()).to(pick_device(device)).eval().requires_grad_(False)
    model.deep_supervision = False
    cases = cached_cases(open_dataset(place), plan, split.val)
    chosen = np.unique(np.linspace(0, len(cases) - 1, min(images, len(cases))).round().astype(int))
    height, width = size or plan.patch_size
    where = next(model.parameters()).device

    def middles() -> Iterator[Tensor]:
        for done, i in enumerate(chosen):
            if on_progress is not None:
                on_progress(done, len(chosen))
            middle = _cut(cases[int(i)].image, height, width)
            yield torch.from_numpy(middle)[None].to(where)

    try:
        return effective_receptive_field(_logits_of(model), middles())
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def _logits_of(model: SegmentationModel) -> Callable[[Tensor], Tensor]:
    def logits(image: Tensor) -> Tensor:
        found = model(image)
        assert isinstance(found, Tensor)  # without deep supervision
        return found

    return logits


def _middle(length: int, part: float) -> slice:
    kept = max(round(part * length), 1)
    first = (length - kept) // 2
    return slice(first, first + kept)


def _cut(image: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """The center of an image (C, H, W), zero-padded if it is smaller."""
    cut = np.zeros((image.shape[0], height, width), np.float32)
    kept = [min(n, m) for n, m in zip(image.shape[1:], (height, width), strict=True)]
    source, target = (
        [slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(shape, kept, strict=True)]
        for shape in (image.shape[1:], (height, width))
    )
    cut[:, target[0], target[1]] = image[:, source[0], source[1]]
    return cut
