"""Check whole models before timing them: logits and gradients.

The ground truth is the original implementation in float32 if available, otherwise our own code in
float64 with the reference scan. The bound is twice the error of that same code in the measured
precision, plus a small floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.models.competitors import (
    IN_CHANNELS,
    OUT_CHANNELS,
    Make,
    ModelCompetitor,
    build_ours,
    eager_inference,
    eager_training,
    supervise,
)
from benchmarks.ops.gate import relative_error

TINY_SIZE, SIZE = (2, 24, 32), (1, 96, 128)
_FLOOR = 1e-4  # float32 sums over whole images in another order


@dataclass(frozen=True)
class _Found:
    logits: Tensor
    gradients: Tensor  # all of them, as one vector


def batch(B: int, H: int, W: int, device: torch.device, seed: int) -> tuple[Tensor, Tensor]:
    """An image (B, 1, H, W) of normal noise in float32, and classes (B, H, W)."""
    g = torch.Generator(device).manual_seed(seed)
    image = torch.randn(B, IN_CHANNELS, H, W, generator=g, device=device)
    return image, torch.randint(OUT_CHANNELS, (B, H, W), generator=g, device=device)


class ModelGate:
    """The ground truth for one model and dtype, computed once."""

    def __init__(
        self,
        model: str,
        tiny: bool,
        state: dict[str, Tensor],
        dtype: torch.dtype | None,
        device: torch.device,
        release: nn.Module | None,
        size: tuple[int, int, int],
    ) -> None:
        self.dtype = dtype
        image, target = batch(*size, torch.device("cpu"), 1)
        self.image, self.target = image.to(device), target.to(device)
        if release is None:
            plain = build_ours(model, tiny, state, backend="reference").to(device)
            wide = build_ours(model, tiny, state, backend="reference").to(device).double()
            truth = self._run(wide, self.image.double(), None)
        else:
            plain = release
            truth = self._run(plain, self.image, None)
        rounded = self._run(plain, self.image, dtype)
        self.truth = truth
        self.allowed = {
            name: 2 * relative_error(getattr(rounded, name), getattr(truth, name)) + _FLOOR
            for name in ("logits", "gradients")
        }

    def why_wrong(self, competitor: ModelCompetitor, model: nn.Module) -> str | None:
        """None if logits and gradients are right, otherwise what is off and by how much."""
        found = self._run(model, self.image, self.dtype, competitor.training, competitor.inference)
        for name, allowed in self.allowed.items():
            error = relative_error(getattr(found, name), getattr(self.truth, name))
            if error > allowed:
                return f"its {name} are {error:.1e} from the truth, allowed {allowed:.1e}"
        return None

    def _run(
        self,
        model: nn.Module,
        image: Tensor,
        dtype: torch.dtype | None,
        training: Make = eager_training,
        inference: Make = eager_inference,
    ) -> _Found:
        """Logits and gradients in eval mode, without drop path."""
        model.eval()
        logits = inference(supervise(model, False), image, self.target, dtype)()
        assert isinstance(logits, Tensor)
        logits = logits.detach().to("cpu", torch.float64)
        training(supervise(model, True), image, self.target, dtype)()
        named = sorted(model.named_parameters())
        gradients = [p.grad.flatten() for _, p in named if p.grad is not None]
        found = _Found(logits, torch.cat(gradients).to("cpu", torch.float64))
        model.zero_grad(set_to_none=True)
        return found
