"""`swin-umamba prepare`: check a dataset, and create everything that training reads."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from swin_umamba.cli.console import counted, err, errors_in_one_line, out, require_png, warning
from swin_umamba.cli.dataset_options import (
    DATASET,
    axis_option,
    patch_size_option,
    splits_option,
)
from swin_umamba.cli.preparing_bar import THREADS, PreparingBar

if TYPE_CHECKING:
    from swin_umamba.data import Plan
    from swin_umamba.data.prepare.prepared import PreparedDataset

PREVIEW = "preview.png"
FOLDS, PLAN = "Folds", "Plan"  # titles of option groups


def prepare(
    dataset: Annotated[Path, DATASET],
    groups: Annotated[
        Path | None,
        typer.Option(
            help="Keep cases of one group, such as a patient, in one fold: a CSV file with columns"
            " name,group, or a JSON object of names to groups.",
            rich_help_panel=FOLDS,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Groups from case names: the match of this regular expression at the start of a"
            " name, or its first group; '(.*)_' is everything up to the last underscore.",
            rich_help_panel=FOLDS,
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        splits_option(FOLDS),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Number of folds.", show_default="5", rich_help_panel=FOLDS),
    ] = None,
    patch_size: Annotated[
        tuple[int, int] | None,
        patch_size_option(PLAN),
    ] = None,
    axis: Annotated[
        int | None,
        axis_option(PLAN),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            help="Plan the batch size for a GPU with this many GB.",
            show_default="this machine's GPU",
            rich_help_panel=PLAN,
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            help="Picture of some cases as the network sees them.",
            show_default=f"{PREVIEW} in the cache",
        ),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Discard the cached data and choices, and start over.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Cases to process in parallel.")] = THREADS,
) -> None:
    """Check a dataset, plan its preprocessing, and preprocess it.

    Reads every case and lists all problems at once. `train` does the same first if needed; run it
    separately to find mistakes before reserving a GPU. Choices made here apply to later trainings
    on the dataset. The cache is in SWIN_UMAMBA_CACHE or the platform's cache folder; see
    swin-umamba cache.
    """
    given: dict[str, Any] = {
        "splits": _absolute(splits),
        "folds": folds,
        "groups": _absolute(groups),
        "group_by": group_by,
        "patch_size": patch_size,
        "axis": axis,
        "gpu_memory": gpu_memory,
    }
    with errors_in_one_line():
        with err.status("Loading"):
            from swin_umamba.data import open_dataset
            from swin_umamba.data.prepare.folds import folds_of
            from swin_umamba.data.prepare.prepared import prepare_dataset, remove_prepared
            from swin_umamba.data.prepare.preview import save_preview
            from swin_umamba.data.prepare.state import Choices, changed_choices

        if preview is not None:
            require_png("--preview", preview)
        changes = {name: value for name, value in given.items() if value is not None}
        if clean:
            # An error must not cost what is cached.
            folds_of(open_dataset(dataset), changed_choices(Choices(), changes))
            remove_prepared(dataset)
        with PreparingBar() as bar:
            found = prepare_dataset(
                dataset,
                Choices(),
                changes=changes,
                keep=True,
                threads=threads,
                on_progress=bar,
            )
        path = preview or found.folder / PREVIEW
        save_preview(path, found.cases.volumes, found.plan.spacing)
    for text in found.warnings:
        warning(text)
    _say(found, path)
    out.print(f"Next: swin-umamba train {shlex.quote(str(dataset))} RUN", soft_wrap=True)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _say(found: PreparedDataset, preview: Path) -> None:
    from swin_umamba.data.prepare.kept import bytes_of

    plan = found.plan
    facts = Table(show_header=False, box=None, pad_edge=False)
    volumes = found.cases.volumes
    slices = f", {len(found.cases)} slices" if len(found.cases) > len(volumes) else ""
    facts.add_row("Cases", f"{len(volumes):,}{slices}")
    facts.add_row("Folds", _folds(found))
    facts.add_row("Channels", ", ".join(_channels(plan)))
    for name, share in _classes(found):
        facts.add_row("Class", f"{name}: {share}")
    if plan.regions is not None:
        facts.add_row("Regions", ", ".join(plan.region_names))
    rows, columns = plan.spacing
    facts.add_row("Spacing", f"{rows:g} x {columns:g}, slices along {'zyx'[plan.axis]}")
    height, width = plan.patch_size
    facts.add_row("Patches", f"{height} x {width}, batches of {plan.batch_size} proposed")
    size = sum(bytes_of(volume) for volume in volumes)
    facts.add_row("Cache", f"{found.folder}, {size / 1e6:.1f} MB")
    facts.add_row("Preview", str(preview))
    out.print(facts, soft_wrap=True)


def _folds(found: PreparedDataset) -> str:
    if not found.splits:
        return "none: train with --fold all"
    sizes = [len(split.val) for split in found.splits]
    return f"{len(sizes)}, with {', '.join(map(str, sizes))} validation cases"


def _channels(plan: Plan) -> list[str]:
    masked = plan.mask_normalization or (False,) * plan.in_channels
    return [
        f"{name} ({scheme}{' of nonzero pixels' if inside else ''})"
        for name, scheme, inside in zip(plan.channel_names, plan.normalization, masked, strict=True)
    ]


def _classes(found: PreparedDataset) -> list[tuple[str, str]]:
    """For each class: its share of the pixels, and the number of cases that contain it."""
    counts = list(found.counts.values())
    known = max(sum(sum(row[1:]) for row in counts), 1)
    return [
        (
            name,
            f"{sum(row[label + 1] for row in counts) / known:.2%} of the pixels, in"
            f" {counted(sum(row[label + 1] > 0 for row in counts), 'case')}",
        )
        for name, label in found.plan.labels.items()
    ]
