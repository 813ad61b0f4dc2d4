"""The metadata of an exported file."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from swin_umamba.common.records import Count, Listed, Record, record
from swin_umamba.data import Plan
from swin_umamba.models import SegmentationModel
from swin_umamba_ops import __version__

KEY = "swin_umamba"
"""Key of these facts in files: ONNX metadata, or a member of .pt2 archives."""

INPUT, OUTPUT = "image", "logits"
"""Names of the input and output of ONNX files."""


def _plan(value: Any) -> Any:
    return Plan.from_values(value) if isinstance(value, dict) else value


@record
class Facts(Record):
    """How to use an exported network, in addition to its graph.

    model: its name. in_channels, out_channels: of image and logits, background included. min_side:
    minimum height and width of images, in pixels. plan: how images become the network's input, and
    its label names; None if only weights were exported. version: of this package. overlap: of
    neighboring windows. keep_largest: classes whose masks are reduced to the largest component.
    """

    WHAT: ClassVar[str] = "description of an exported network"

    model: str
    in_channels: Count
    out_channels: Count
    min_side: Count
    plan: Annotated[Plan | None, BeforeValidator(_plan)]
    version: str
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    keep_largest: Annotated[tuple[Count, ...], Listed] = ()

    @classmethod
    def of(
        cls,
        model: SegmentationModel,
        plan: Plan | None,
        *,
        min_side: int = 1,
        overlap: float = 0.5,
        keep_largest: tuple[int, ...] = (),
    ) -> Facts:
        """The facts of a model. Raises ValueError for a plan with other channels or outputs."""
        for name, mine, planned in (
            ("in_channels", model.in_channels, plan and plan.in_channels),
            ("num_classes", model.out_channels, plan and plan.num_outputs),
        ):
            if planned is not None and planned != mine:
                raise ValueError(f"plan: got {name} {planned}, expected the model's {mine}")
        return cls(
            model=(model.config or {}).get("name", type(model).__name__),
            in_channels=model.in_channels,
            out_channels=model.out_channels,
            min_side=min_side,
            plan=plan,
            version=__version__,
            overlap=overlap,
            keep_largest=keep_largest,
        )

    def to_json(self) -> str:
        values = {**dataclasses.asdict(self), "plan": None}
        if self.plan is not None:
            values["plan"] = json.loads(self.plan.to_json())  # including its schema number
        return json.dumps({"schema": self.SCHEMA, **values}, allow_nan=False)
