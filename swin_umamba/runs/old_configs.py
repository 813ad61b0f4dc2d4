"""Configs of runs made before their files had a schema number."""

from __future__ import annotations

from typing import Any

_SWITCHES = (
    *("deep_supervision", "augment", "batch_dice", "compile", "cuda_graph"),
    *("checkpoint_activations", "tensorboard"),
)


def from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    """Interpret values of schema 1, whose types were not checked, as Python treated them."""
    values = {name: _whole(value) for name, value in values.items()}
    for name in _SWITCHES:
        if name in values:
            values[name] = bool(values[name])  # any text, even "False", counted as true
    augmentation = values.get("augmentation")
    if isinstance(augmentation, dict):
        values["augmentation"] = {
            name: min(max(value, 0.0), 1.0) if _is_chance(name, value) else value
            for name, value in augmentation.items()
        }
    return values


def _whole(value: Any) -> Any:
    """Convert whole floats to integers: --set iterations=1e3 used to write 1000.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_chance(name: str, value: Any) -> bool:
    return name.startswith("p_") and isinstance(value, (int, float))
