"""The benefit of pretraining: pretrained encoders are fine-tuned and compared with others.

Each encoder is pretrained once on IMAGES by `swin-umamba pretrain`, alone on its device. Then every
model with every encoder is trained on each dataset twice, from that encoder and from scratch, and
so are the baselines, as by `python -m benchmarks accuracy --together`: all arms of one dataset and
seed share a device at the same time. The arm of a model, an encoder and a start is called
MODEL+ENCODER+pretrained or MODEL+ENCODER+scratch; --arm adds others. Encoders of VMamba's second
generation are the same for all models, and are pretrained only once.

Completed parts in --work are not repeated, so an interrupted call can be run again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.training import accuracy
from swin_umamba.runs.log import waiting_share

MODELS = ("swin_umamba", "swin_umamba_d")
ENCODERS = ("vmamba_tiny", "vmamba_v2_tiny_s1l8")
BASELINES = ("dynunet", "resenc_m")
FINE_TUNING = ("--set", "freeze_iterations=0")
PRETRAINED, SCRATCH = "pretrained", "scratch"
_ENCODER = "encoder.safetensors"
_SHARED = "vmamba_v2_"  # encoders whose patches are those of images, whatever the model


@dataclass(frozen=True)
class Settings:
    """See the help of `python -m benchmarks pretraining`.

    fine_tuning: settings of `swin-umamba accuracy` except the arms; its work folder is used for
    everything. pretraining: options of `swin-umamba pretrain`. start: options of `swin-umamba
    train` for arms that start from an encoder. arms: further ones, with the options of `swin-umamba
    train`.
    """

    images: Path
    fine_tuning: accuracy.Settings
    models: Sequence[str] = MODELS
    encoders: Sequence[str] = ENCODERS
    baselines: Sequence[str] = BASELINES
    minutes: float = 7.3
    pretraining: Sequence[str] = ()
    start: Sequence[str] = FINE_TUNING
    arms: dict[str, Sequence[str]] = field(default_factory=dict)


def front(model: str, encoder: str) -> str:
    """The name of the pretraining for a model with an encoder."""
    return encoder if encoder.startswith(_SHARED) else f"{model}+{encoder}"


def fronts(settings: Settings) -> dict[str, tuple[str, str]]:
    """Model and encoder of each pretraining, by name."""
    pairs = [(model, encoder) for encoder in settings.encoders for model in settings.models]
    found: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        found.setdefault(front(*pair), pair)
    return found


def folder_of(settings: Settings, name: str) -> Path:
    """The run folder of a pretraining."""
    return settings.fine_tuning.work / f"pretraining-{name}"


def command(settings: Settings, name: str, device: str) -> list[str]:
    """The command that pretrains, continuing an interrupted run."""
    model, encoder = fronts(settings)[name]
    return [
        *(sys.executable, "-m", "swin_umamba.cli", "pretrain"),
        *(str(settings.images), str(folder_of(settings, name)), "--resume"),
        *("--model", model, "--encoder", encoder, "--minutes", str(settings.minutes)),
        *("--device", device, *settings.pretraining),
    ]


def arms(settings: Settings) -> dict[str, list[str]]:
    """Options of `swin-umamba train` by arm, pretrained ones first."""
    found: dict[str, list[str]] = {}
    for start in (PRETRAINED, SCRATCH):
        for model in settings.models:
            for encoder in settings.encoders:
                options = ["--model", model, "--set", f"model_options.encoder={encoder}"]
                if start == PRETRAINED:
                    weights = folder_of(settings, front(model, encoder)) / _ENCODER
                    options += ["--pretrained", str(weights), *settings.start]
                found[f"{model}+{encoder}+{start}"] = options
    found |= {name: ["--model", name] for name in settings.baselines}
    return found | {name: list(options) for name, options in settings.arms.items()}


def pairs(settings: Settings) -> list[tuple[str, str]]:
    """What is compared case by case: all arms with the baselines, and each start with scratch."""
    every = list(arms(settings))
    ours = [name for name in every if name not in settings.baselines]
    found = [(name, baseline) for baseline in settings.baselines for name in ours]
    starts = [(name, name.removesuffix(PRETRAINED) + SCRATCH) for name in every]
    return found + [pair for pair in starts if pair[0].endswith(f"+{PRETRAINED}")]


def compared(settings: Settings) -> accuracy.Settings:
    """The settings of the fine-tuning, with all arms."""
    options = arms(settings)
    narrower = settings.fine_tuning.options_of
    return replace(
        settings.fine_tuning,
        models=list(options),
        # The arm's own options first: those requested by its name come last and take precedence.
        options_of={**narrower, **{n: [*o, *narrower.get(n, ())] for n, o in options.items()}},
        pairs=pairs(settings),
    )


def run(settings: Settings, tree: str | None = None, out: Path | None = None) -> dict[str, Any]:
    """Pretrain, fine-tune and score everything; the facts, as written to `out`.

    Raises ValueError, with the last line of its log, if a pretraining fails.
    """
    if not settings.images.exists():
        raise ValueError(f"IMAGES: no file or folder at {settings.images}")
    settings.fine_tuning.work.mkdir(parents=True, exist_ok=True)
    devices = settings.fine_tuning.devices
    names = list(fronts(settings))
    shares = [names[place :: len(devices)] for place in range(len(devices))]
    with ThreadPoolExecutor(len(devices)) as pool:
        for done in [
            pool.submit(_pretrain, settings, *p) for p in zip(shares, devices, strict=True)
        ]:
            done.result()
    facts = accuracy.run(compared(settings), tree=tree, out=out)
    facts["pretraining"] = {
        "images": settings.images.name,
        "minutes": settings.minutes,
        "options": list(settings.pretraining),
        "runs": [pretraining_facts(folder_of(settings, name), name) for name in names],
    }
    if out is not None:
        out.write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def pretraining_facts(folder: Path, name: str) -> dict[str, Any]:
    """The result of a pretraining, from its log."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    config = json.loads((folder / "pretraining.json").read_text())
    steps = [record["step"] for record in records]
    # The first steps build kernels and a graph.
    typical = statistics.median(steps[1:] or steps)
    scored = [r for r in records if "held_out_loss" in r]
    return {
        "name": name,
        "task": config["task"],
        "image_size": config["image_size"],
        "batch_size": config["batch_size"],
        "lr": config["lr"],
        "iterations": len(records),
        "seconds": records[-1]["seconds"],
        "images_per_second": config["batch_size"] / typical,
        "waited": waiting_share(records) or 0.0,
        "skipped": sum("skipped" in r for r in records),
        "memory_mb": max((r["memory_mb"] for r in records if "memory_mb" in r), default=None),
        "curve": [[r["seconds"], r.get("accuracy"), r["held_out_loss"]] for r in scored],
    }


def _pretrain(settings: Settings, names: Sequence[str], device: str) -> None:
    for name in names:
        if _is_complete(folder_of(settings, name)):
            continue
        log = settings.fine_tuning.work / f"pretraining-{name}.txt"
        with log.open("a") as text:
            words = command(settings, name, device)
            done = subprocess.run(words, stdout=text, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            lines = [line for line in log.read_text().splitlines() if "rror" in line]
            reason = lines[-1].strip() if lines else f"status {done.returncode}: see {log}"
            raise ValueError(f"pretraining of {name}: {reason}")
        (folder_of(settings, name) / ".complete").touch()
        print(f"pretrained {name}", file=sys.stderr, flush=True)


def _is_complete(folder: Path) -> bool:
    return (folder / ".complete").is_file() and (folder / _ENCODER).is_file()
