"""From a folder of images and masks to a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from swin_umamba.common.devices import pick_device
from swin_umamba.common.environment import describe_json
from swin_umamba.data import CachedCases, Plan, Split, open_dataset, pick_split, read_splits
from swin_umamba.data.datasets.splits import splits_json
from swin_umamba.data.prepare.folds import labelled
from swin_umamba.data.prepare.prepared import cached_cases, prepare_dataset
from swin_umamba.data.prepare.work import OnProgress
from swin_umamba.errors import UserError
from swin_umamba.loop.session import Progress
from swin_umamba.loop.world import World, launched
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import ENVIRONMENT, PLAN, SPLITS
from swin_umamba.runs.run import Run
from swin_umamba.train.batch_size import measured_patches
from swin_umamba.train.loop import TrainResult, train

OVERLAYS = 3  # validation cases drawn during training


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The input of `train`, preprocessed on disk."""

    config: TrainConfig
    plan: Plan
    split: Split
    train_cases: CachedCases
    val_cases: CachedCases
    warnings: tuple[str, ...] = ()  # possible problems of the dataset
    # for planning the batch size, with gpu_memory; None if it is set
    largest_batch: int | None = None
    gpu_memory: int | None = None  # bytes; None for all there is


def prepare(
    dataset_folder: Path,
    config: TrainConfig,
    *,
    run: Path | None = None,
    splits_file: Path | None = None,
    patch_size: tuple[int, int] | None = None,
    axis: int | None = None,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> Prepared:
    """Read, plan, split and preprocess a dataset, or reuse cached results: see `prepare_dataset`.

    config: its fold, model and settings are kept; dataset, channels, classes and patch_size are
    filled in from the dataset (patch_size: by the plan unless given). run: a run to continue, whose
    plan and split are kept. splits_file: in nnU-Net's format; by default the choices of the last
    `swin-umamba prepare`, or five folds with a fixed seed. axis: of volumes, see `make_plan`.
    Raises UserError for anything missing, damaged or inconsistent. With several processes the first
    one prepares, and the others wait, however long it takes.
    """
    if run is not None:
        return _as_in_run(dataset_folder, config, run, threads, on_progress)
    given = {
        "splits": None if splits_file is None else str(splits_file.absolute()),
        "patch_size": patch_size,
        "axis": axis,
    }
    found = prepare_dataset(
        dataset_folder,
        changes={name: value for name, value in given.items() if value is not None},
        fold=config.fold,
        threads=threads,
        on_progress=on_progress,
    )
    prepared = _prepared(dataset_folder, config, found.plan, found.split, found.cases)
    return dataclasses.replace(
        prepared,
        warnings=found.warnings,
        largest_batch=found.largest_batch,
        gpu_memory=found.gpu_memory,
    )


def _as_in_run(
    dataset_folder: Path,
    config: TrainConfig,
    run: Path,
    threads: int,
    on_progress: OnProgress | None,
) -> Prepared:
    dataset = open_dataset(dataset_folder)
    plan = Plan.load(run / PLAN)
    if plan.dataset != dataset.name:
        raise UserError(f"{run} was trained on {plan.dataset}, not on {dataset.name}")
    split = pick_split(read_splits(run / SPLITS), 0, labelled(dataset))
    names = list(dict.fromkeys((*split.train, *split.val)))
    cases = cached_cases(dataset, plan, names, threads=threads, on_progress=on_progress)
    return _prepared(dataset_folder, config, plan, split, cases)


def _prepared(
    dataset_folder: Path,
    config: TrainConfig,
    plan: Plan,
    split: Split,
    cases: CachedCases,
) -> Prepared:
    config = dataclasses.replace(
        config,
        dataset=str(dataset_folder),
        in_channels=plan.in_channels,
        num_classes=plan.num_classes,
        patch_size=plan.patch_size,
    )
    volumes = {volume.name: volume for volume in cases.volumes}
    return Prepared(
        config,
        plan,
        split,
        CachedCases([volumes[name] for name in split.train]),
        CachedCases([volumes[name] for name in split.val]),
    )


def with_planned_batches(prepared: Sequence[Prepared]) -> list[Prepared]:
    """Set the batch size by the GPU's memory and the dataset; see `train.batch_size`.

    prepared: for the folds of one dataset, which get the same size, measured with the first; those
    without `largest_batch`, and all on a CPU, keep their config's. At least one patch per process.
    Must be called by all processes together, after all folds are prepared.
    """
    config, largest = prepared[0].config, prepared[0].largest_batch
    if largest is None or not _on_gpu(config.device):
        return list(prepared)
    world = World(config.device)
    measured = measured_patches(
        *(config, prepared[0].train_cases, prepared[0].plan, world.device),
        most=max(largest // world.size, 1),
        memory=prepared[0].gpu_memory,
    )
    (least,) = world.highest(-measured)
    size = -int(least) * world.size
    return [
        dataclasses.replace(
            one,
            config=one.config.changed({"batch_size": size}),
            plan=dataclasses.replace(one.plan, batch_size=size),
        )
        for one in prepared
    ]


def _on_gpu(device: str) -> bool:
    if launched():
        return device != "cpu" and torch.cuda.is_available()
    return pick_device(device).type == "cuda"


def train_prepared(
    prepared: Prepared,
    folder: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """`train` with plan, split and environment stored in the run folder, and overlays."""
    return train(
        prepared.config,
        prepared.train_cases,
        prepared.val_cases,
        folder,
        resume=resume,
        plan=prepared.plan,
        files={
            PLAN: prepared.plan.to_json(),
            SPLITS: splits_json([prepared.split]),
            ENVIRONMENT: describe_json(World(prepared.config.device).size),
        },
        overlays=OVERLAYS,
        on_progress=on_progress,
    )


def read_run(folder: Path) -> TrainConfig:
    """The config of a run. Raises UserError if the folder contains none."""
    return Run.open(folder).config
