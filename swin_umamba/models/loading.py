"""Load a model from its file, built only after checking that the file contains all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from swin_umamba.models.factory import create_model
from swin_umamba.weights.saved import load_weights, read_config, require_fit

if TYPE_CHECKING:
    from swin_umamba.models.base import SegmentationModel

_LARGEST = 2**20
"""Upper limit for every number in a model's description: far beyond every real width."""
_LISTED = ("dims", "depths", "decoder_depths", "widths")


def load_model(path: str | os.PathLike[str], **options: Any) -> SegmentationModel:
    """The model of a file written by `save_weights`, on the CPU.

    options: further arguments of `create_model`, which override those in the file, such as
    `backend`. Raises FileNotFoundError, or ValueError for a file that is damaged, of no model of
    ours, or incomplete; no memory is allocated for anything that the file does not contain.
    """
    config = {**read_config(path), **options}
    _require_whole(config, path)
    model = create_model(**config)
    load_weights(model, path)
    return model


def require_whole(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `create_model` from a file, if it contains the whole model.

    Errors as in `load_model`.
    """
    config = read_config(path)
    _require_whole(config, path)
    return config


def _require_whole(config: dict[str, Any], path: str | os.PathLike[str]) -> None:
    try:
        shapes = laid_out(config)
    except ValueError as error:
        raise ValueError(f"{path} describes a model that cannot be built: {error}") from error
    require_fit(shapes, path)


def laid_out(config: dict[str, Any]) -> SegmentationModel:
    """The model on the meta device: its shapes, without memory.

    Raises ValueError, in one line, for arguments that describe no valid model.
    """
    _require_sensible(config)
    try:
        with torch.device("meta"), _RangesOnCpu():
            return create_model(**config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(reason) from error


class _RangesOnCpu(TorchFunctionMode):
    """Needed since MONAI reads the values of a range while building a Swin UNETR."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({"device": "cpu", **kwargs} if func is torch.linspace else kwargs))


def _require_sensible(config: dict[str, Any]) -> None:
    """Refuse numbers so large that even building the layers would take forever."""
    for name, value in config.items():
        numbers = value if isinstance(value, (list, tuple)) else [value]
        for number in numbers:
            if isinstance(number, (int, float)) and abs(number) > _LARGEST:
                raise ValueError(f"{name}: got {number!r}, expected at most {_LARGEST}")
        if name in _LISTED and isinstance(value, (list, tuple)):
            if not all(isinstance(number, int) for number in numbers) or len(numbers) > 64:
                raise ValueError(f"{name}: got {value!r}, expected a few whole numbers")
            if "depths" in name and sum(numbers) > 4096:
                raise ValueError(f"{name}: got {value!r}, expected at most 4096 blocks")
