"""The page of a pretraining."""

from __future__ import annotations

import dataclasses
import statistics
from html import escape
from pathlib import Path
from typing import Any

from swin_umamba.common.encoders import network_name
from swin_umamba.common.environment import read_environment
from swin_umamba.common.files import resolved
from swin_umamba.common.jsons import load_object
from swin_umamba.drawing.plots import pretraining_curves_png
from swin_umamba.errors import UserError
from swin_umamba.pretrain.config import CLASSES, CONFIG, PretrainConfig
from swin_umamba.report.page import curves_card, document, duration, facts_table, tile_row
from swin_umamba.runs.folder import ENVIRONMENT, IMAGES
from swin_umamba.runs.log import LOG, Record, read_log, waiting_share


def pretraining_page(folder: Path) -> str:
    """One HTML document. Raises UserError, naming the file, for missing or damaged files."""
    config = PretrainConfig.load(folder / CONFIG)
    records = read_log(folder)
    if not records:
        raise UserError(f"{folder / LOG} is empty: the run has not finished an iteration yet")
    images = load_object(folder / IMAGES, "the images of a pretraining")
    environment = read_environment(folder / ENVIRONMENT)
    name = resolved(folder).name
    what = "classes of images" if config.task == CLASSES else "masked pixels"
    network = escape(network_name(config.model, config.encoder))
    body = (
        f"<h1>{escape(name)}</h1><p class=faint>{network}, pretrained on {what} of"
        f" {escape(str(images.get('name')))}</p>\n"
        + tile_row(_numbers(config, records, images))
        + curves_card(
            lambda theme: pretraining_curves_png(records, theme),
            "Training loss, score on held-out images and learning rate over the iterations",
        )
        + _settings(config, environment)
    )
    return document(f"{name}: Swin-UMamba pretraining report", body)


def _numbers(
    config: PretrainConfig, records: list[Record], images: dict[str, Any]
) -> list[tuple[str, str, str]]:
    found = []
    scored = next((r for r in reversed(records) if "held_out_loss" in r), {})
    if "accuracy" in scored:
        found.append(("Accuracy", f"{scored['accuracy']:.1%}", "top 1, on held-out images"))
    if "held_out_loss" in scored:
        found.append(("Loss", f"{scored['held_out_loss']:.3f}", "on held-out images"))
    seconds = float(records[-1].get("seconds", 0.0))
    steps = f"{records[-1]['iteration']:,} steps"
    if skipped := sum("skipped" in record for record in records):
        steps += f", {skipped} skipped"
    found.append(("Training", duration(seconds), steps))
    taken = [record["step"] for record in records if record.get("step")]
    if taken:
        waited = waiting_share(records) or 0.0
        speed = config.batch_size / statistics.median(taken)
        found.append(("Images/s", f"{speed:,.0f}", f"median; {waited:.1%} waiting for data"))
    classes = images.get("classes") or []
    found.append(
        ("Images", f"{images.get('images', 0):,}", f"{len(classes)} classes" if classes else "")
    )
    return found


def _settings(config: PretrainConfig, environment: dict[str, str]) -> str:
    default = PretrainConfig()
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    changed = {name: v for name, v in values.items() if v != getattr(default, name)}
    usual = {name: v for name, v in values.items() if name not in changed}
    return (
        f"<h2>Settings</h2><div class=columns><div class=card><h3>Configuration</h3>"
        f"{facts_table(changed)}<details><summary>{len(usual)} fields have their default</summary>"
        f"{facts_table(usual)}</details></div><div class=card><h3>Environment</h3>"
        f"{facts_table(environment)}</div></div>\n"
    )
