"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swin_umamba.data import Case, PatchSampler
from swin_umamba.errors import UserError
from swin_umamba.losses import DeepSupervisionLoss, scale_weights
from swin_umamba.metrics import dice
from swin_umamba.models import SegmentationModel, create_model
from swin_umamba.predict import pick_device, predict
from swin_umamba.train.config import TrainConfig
from swin_umamba.train.run_folder import Record, RunFolder


@dataclass(frozen=True)
class Progress:
    """Where a run stands after an iteration."""

    iteration: int  # counted from 1
    done: float  # 0..1, of iterations or of minutes, whichever is further
    seconds_left: float  # estimated
    loss: float
    dsc: float | None  # of the last validation


@dataclass(frozen=True)
class TrainResult:
    """A trained model, in eval mode and on its device, with the log's records."""

    model: SegmentationModel
    device: torch.device
    records: list[Record]
    dsc: float | None  # as `validate`, after the last iteration
    seconds: float


def train(
    config: TrainConfig,
    train_cases: Sequence[Case],
    val_cases: Sequence[Case],
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a new model; leave config.json, log.jsonl and model.safetensors in `folder`.

    folder: missing or empty. on_progress is called after every iteration. Seeds torch's global
    generator; on a CPU the same config and cases give the same weights, unless `minutes` ends the
    run. Raises UserError if the cases do not fit the config, the folder is taken or cannot be
    written to, or the loss is not finite.
    """
    _check_cases(config, [*train_cases, *val_cases])
    device = pick_device(config.device)
    clock = _Clock(config)
    torch.manual_seed(config.seed)
    model = create_model(
        config.model,
        in_channels=config.in_channels,
        out_channels=config.num_classes,
        deep_supervision=config.deep_supervision,
        **config.model_options,
    ).to(device)
    weights = scale_weights(len(model.scales) if config.deep_supervision else 1)
    loss_of = DeepSupervisionLoss(weights, config.batch_dice)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    half = _half_precision(config.amp, device)
    scaler = torch.amp.GradScaler(device.type, enabled=half == torch.float16)
    sampler = PatchSampler(
        train_cases,
        patch_size=config.patch_size,
        batch_size=config.batch_size,
        foreground=config.foreground,
        augment=config.augment,
        seed=config.seed,
    )

    dsc: float | None = None
    with RunFolder(folder, config.to_json()) as run:
        for iteration in range(1, config.iterations + 1):
            lr = learning_rate(config, clock.done(iteration - 1))
            for group in optimizer.param_groups:
                group["lr"] = lr
            images, masks = (part.to(device) for part in sampler.batch(iteration - 1))

            model.train()
            with torch.autocast(device.type, half, enabled=half is not None):
                outputs = model(images)
            loss = loss_of(outputs, masks)
            _require_finite(loss, iteration, config)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            scaler.step(optimizer)
            scaler.update()

            record: Record = {"iteration": iteration, "loss": loss.item(), "lr": lr}
            done = clock.done(iteration)
            if done >= 1 or iteration % config.validate_every == 0:
                began = clock.seconds()
                record["dsc"] = dsc = validate(model, val_cases, config)
                clock.reserve = clock.seconds() - began
            record["seconds"] = round(clock.seconds(), 3)
            run.log(record)
            if on_progress is not None:
                left = clock.seconds() * (1 - done) / done
                on_progress(Progress(iteration, done, left, loss.item(), dsc))
            if done >= 1:
                break
        run.save(model)
    return TrainResult(model.eval(), device, run.records, dsc, clock.seconds())


def validate(model: SegmentationModel, cases: Sequence[Case], config: TrainConfig) -> float | None:
    """Mean DSC over the classes and cases where it is defined; None if there are none."""
    scores = [
        dice(
            predict(model, case.image, patch_size=config.patch_size, overlap=config.overlap).argmax(
                0
            ),
            case.mask,
            config.num_classes,
        )
        for case in cases
    ]
    defined = np.concatenate([np.empty(0), *scores])
    defined = defined[~np.isnan(defined)]
    return float(defined.mean()) if defined.size else None


def learning_rate(config: TrainConfig, done: float) -> float:
    """The rate when a share `done`, 0..1, of the run is over: a linear rise, then half a cosine."""
    if done < config.warmup:
        return config.lr * done / config.warmup
    over = (done - config.warmup) / (1 - config.warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * over)) / 2


class _Clock:
    """How far a run is: by iterations, or by time if that is limited and further."""

    def __init__(self, config: TrainConfig) -> None:
        self.iterations = config.iterations
        self.limit = math.inf if config.minutes is None else 60 * config.minutes
        self.started = time.perf_counter()
        self.reserve = 0.0  # seconds that the last validation will take

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def done(self, iteration: int) -> float:
        """0..1, after that many iterations."""
        by_time = (self.seconds() + self.reserve) / self.limit
        return min(max(iteration / self.iterations, by_time), 1.0)


def _check_cases(config: TrainConfig, cases: Sequence[Case]) -> None:
    for case in cases:
        channels, highest = case.image.shape[0], int(case.mask.max())
        if channels != config.in_channels:
            raise UserError(f"{case.name} has {channels} channels, expected {config.in_channels}")
        if highest >= config.num_classes or case.mask.min() < 0:
            raise UserError(
                f"the mask of {case.name} holds the labels {int(case.mask.min())} to {highest},"
                f" expected 0 to {config.num_classes - 1}"
            )


def _require_finite(loss: Tensor, iteration: int, config: TrainConfig) -> None:
    if not math.isfinite(loss.item()):
        raise UserError(
            f"the loss is {loss.item()} at iteration {iteration}: lower lr ({config.lr:g}), or"
            f" switch amp ({config.amp}) off"
        )


def _half_precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, or None to stay in float32."""
    if amp == "off" or device.type != "cuda":
        return None
    if amp == "auto":
        amp = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
