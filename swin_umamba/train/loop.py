"""`train`: check and open everything a training needs, then run it as a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from swin_umamba.data import CachedCases, Case, Plan
from swin_umamba.errors import UserError
from swin_umamba.loop.session import Progress, Result, Session
from swin_umamba.loop.stopping import stop_requests
from swin_umamba.loop.world import World
from swin_umamba.models import SegmentationModel
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import PRETRAINED, RunFolder
from swin_umamba.train.stepping import Stepper
from swin_umamba.train.validation import Validation

TrainResult = Result[SegmentationModel]


def train(
    config: TrainConfig,
    train_cases: Sequence[Case],
    val_cases: Sequence[Case],
    folder: Path,
    *,
    resume: bool = False,
    plan: Plan | None = None,
    files: Mapping[str, str] | None = None,
    overlays: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a model; write config, log, checkpoint and weights (last and best) to `folder`.

    folder: missing or empty; with `resume`, that of a run with the same config except for
    CHANGEABLE fields, which continues from its last checkpoint as if it had never stopped: on a
    CPU, unless `minutes` decides, with bitwise the same weights. plan: by which the cases were
    preprocessed; if it has regions, one sigmoid output is trained per region. files: further text
    files for a new folder, by name. overlays: validation cases, by valid file name, whose
    predictions are drawn into the folder at every validation. on_progress is called after every
    iteration. SIGINT or SIGTERM stops a run after the current iteration, with a checkpoint.

    Under `accelerate launch` or torchrun the processes share every batch, which is the same for any
    number of processes, and the validation cases; the first one writes. The others read the folder
    when a run is resumed.

    A step with a non-finite loss or gradient is skipped, and the log records where it originated.
    After `max_skipped` in a row the last checkpoint is restored with half the learning rate, which
    is logged as well, up to `max_returns` times. Overflows that fp16's scaling handles by lowering
    its scale are skipped and logged, but not counted.

    Reseeds torch's global generator in every iteration. Raises UserError if the cases do not match
    the config, the folder is not empty or not writable, a checkpoint is damaged or of another
    model, or losses remain non-finite.
    """
    _check_cases(config, train_cases, val_cases)
    world = World(config.device)
    if config.batch_size % world.size:
        raise UserError(
            f"batch_size: got {config.batch_size}, expected a multiple of the {world.size}"
            " processes"
        )
    if config.cuda_graph is True and (world.size > 1 or world.device.type != "cuda"):
        raise UserError("cuda_graph: true, expected auto or false but on a single CUDA device")
    if config.compile and world.sharded:
        raise UserError("compile: true, expected false under FSDP")
    with ExitStack() as stack:
        asked = stack.enter_context(stop_requests())
        # A model that cannot be built fails before anything is written.
        stepper = stack.enter_context(
            Stepper(config, train_cases, world, asked, pretrained=not resume, plan=plan)
        )
        run_folder = None
        if world.main:
            report = stepper.model.pretrained_report
            if report is not None:
                files = {**(files or {}), PRETRAINED: report.to_json()}
            run_folder = stack.enter_context(RunFolder(folder, config, files, resume=resume))
        validation = Validation(
            val_cases,
            config,
            world,
            folder=folder,
            overlays=overlays if world.main else 0,
            plan=plan,
        )
        run = Session(config, validation, stepper, world, folder, run_folder)
        return run.go(resume, asked, on_progress)


def _check_cases(
    config: TrainConfig, train_cases: Sequence[Case], val_cases: Sequence[Case]
) -> None:
    if not len(train_cases):
        raise UserError("there are no cases to train on")
    for cases in (train_cases, val_cases):
        if isinstance(cases, CachedCases):
            continue  # checked during preprocessing
        for case in cases:
            channels, highest = case.image.shape[0], int(case.mask.max())
            if channels != config.in_channels:
                raise UserError(
                    f"{case.name} has {channels} channels, expected {config.in_channels}"
                )
            if highest >= config.num_classes or case.mask.min() < -1:
                raise UserError(
                    f"the mask of {case.name} holds the labels {int(case.mask.min())} to {highest},"
                    f" expected 0 to {config.num_classes - 1}, or -1 where ignored"
                )
