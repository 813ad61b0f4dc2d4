"""What an exported file says of itself."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from swin_umamba.data import Plan
from swin_umamba.models import SegmentationModel
from swin_umamba_ops import __version__

KEY = "swin_umamba"
"""The name under which files hold these facts: ONNX metadata, a member of .pt2 archives."""

INPUT, OUTPUT = "image", "logits"
"""What ONNX files call their input and output."""


@dataclass(frozen=True)
class Facts:
    """How to use an exported network, beside its graph.

    model: the model's name. in_channels, out_channels: of image and logits, background included.
    min_side: the least height and width of images, in pixels. plan: how images become the network's
    input, and its labels by name; None where only weights were known. version: of this package.
    """

    model: str
    in_channels: int
    out_channels: int
    min_side: int
    plan: Plan | None
    version: str

    @classmethod
    def of(cls, model: SegmentationModel, plan: Plan | None, *, min_side: int = 1) -> Facts:
        """The facts of a model. Raises ValueError for a plan of other channels or classes."""
        for name, mine, planned in (
            ("in_channels", model.in_channels, plan and plan.in_channels),
            ("num_classes", model.out_channels, plan and plan.num_classes),
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
        )

    def to_json(self) -> str:
        facts = {**dataclasses.asdict(self), "plan": None}
        if self.plan is not None:
            facts["plan"] = json.loads(self.plan.to_json())
        return json.dumps(facts)

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Read what `to_json` wrote. Raises ValueError for anything else."""
        facts = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(facts, dict) or set(facts) != names:
            raise ValueError(f"expected a JSON object with {', '.join(sorted(names))}")
        if facts["plan"] is not None:
            facts["plan"] = Plan.from_json(json.dumps(facts["plan"]))
        return cls(**facts)
