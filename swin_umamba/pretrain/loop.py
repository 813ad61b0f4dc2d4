"""`pretrain`: check and open everything a pretraining needs, then run it as a session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from swin_umamba.common.environment import describe_json
from swin_umamba.common.jsons import load_object
from swin_umamba.errors import UserError
from swin_umamba.loop.session import Progress, Result, Session
from swin_umamba.loop.stopping import stop_requests
from swin_umamba.loop.world import World
from swin_umamba.pretrain.config import CLASSES, PretrainConfig
from swin_umamba.pretrain.encoder_file import ENCODER_FILE, provenance, save_encoder
from swin_umamba.pretrain.scoring import Scoring
from swin_umamba.pretrain.stepping import Stepper
from swin_umamba.pretrain.tasks import Network
from swin_umamba.pretrain.tiles import Tiles
from swin_umamba.runs.folder import ENVIRONMENT, IMAGES, RunFolder

PretrainResult = Result[Network]


def pretrain(
    config: PretrainConfig,
    tiles: Tiles,
    folder: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> PretrainResult:
    """Pretrain stem and encoder on images; write config, log, checkpoint and encoder to `folder`.

    tiles: see `read_tiles`. folder: missing or empty; with `resume`, that of a pretraining with the
    same config except for CHANGEABLE fields, which continues from its last checkpoint as if it had
    never stopped: on a CPU, unless `minutes` decides, with bitwise the same weights. on_progress is
    called after every iteration. SIGINT or SIGTERM stops a run after the current iteration, with a
    checkpoint. encoder.safetensors is for `train --pretrained`; model.safetensors also contains the
    task's head.

    Under torchrun or `accelerate launch` the processes share every batch, which is the same for any
    number of processes; the first one writes.

    Raises UserError if images and config do not match, the folder is not empty or not writable, a
    checkpoint is damaged or of another model, or losses remain non-finite.
    """
    _check(config, tiles)
    world = World(config.device)
    if world.sharded:
        raise UserError("pretraining supports several processes with torchrun, not FSDP")
    each = 2 if config.task == CLASSES and config.mixup > 0 else 1
    if config.batch_size % (each * world.size):
        raise UserError(
            f"batch_size: got {config.batch_size}, expected a multiple of {each * world.size}"
            f" for {world.size} processes"
        )
    if config.cuda_graph is True and world.device.type != "cuda":
        raise UserError("cuda_graph: got true, expected auto or false except on a CUDA device")
    if resume:
        _require_same_images(folder / IMAGES, tiles)
    with ExitStack() as stack:
        asked = stack.enter_context(stop_requests())
        stepper = stack.enter_context(Stepper(config, tiles, world))
        run_folder = None
        if world.main:
            files = {ENVIRONMENT: describe_json(world.size), IMAGES: tiles.to_json()}
            run_folder = stack.enter_context(RunFolder(folder, config, files, resume=resume))
        scoring = Scoring(config, stepper.batches, world)
        session = Session(config, scoring, stepper, world, folder, run_folder, keep_best=False)
        result = session.go(resume, asked, on_progress)
        if world.main:
            facts = provenance(config, tiles, result.records)
            save_encoder(result.model.front, folder / ENCODER_FILE, facts)
    return result


def _check(config: PretrainConfig, tiles: Tiles) -> None:
    if config.in_channels not in (None, tiles.channels):
        raise UserError(
            f"in_channels: got {config.in_channels}, the images have {tiles.channels} channels"
        )
    if config.task == CLASSES and (tiles.labels is None or len(tiles.classes) < 2):
        raise UserError(f"task: {tiles.name} has no classes to learn, expected two or more")


def _require_same_images(path: Path, tiles: Tiles) -> None:
    if path.is_file():
        known = load_object(path, "the images of a pretraining")
        if known.get("digest") != tiles.digest:
            raise UserError(
                f"cannot resume: {tiles.name} is not what {path} names, or its images have changed"
            )
