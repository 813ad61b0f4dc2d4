"""`swin-umamba prepare`: check a dataset, and make all that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from swin_umamba.cli.console import errors_in_one_line, out, problem
from swin_umamba.cli.preparing_bar import THREADS, PreparingBar

if TYPE_CHECKING:
    from swin_umamba.data import Plan
    from swin_umamba.data.prepare.prepared import PreparedDataset

PREVIEW = "preview.png"


def prepare(
    dataset: Annotated[
        Path, typer.Argument(help="nnU-Net v2 raw dataset, or a folder with images/ and masks/.")
    ],
    groups: Annotated[
        Path | None,
        typer.Option(
            help="Cases that must stay in one fold, as of one patient: a CSV of name,group, or a"
            " JSON of names to groups."
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="The same by a rule: what this finds at the beginning of a name, or its first"
            " parenthesis; '(.*)_' takes all up to the last underscore.",
        ),
    ] = None,
    splits: Annotated[Path | None, typer.Option(help="Splits in nnU-Net's form.")] = None,
    folds: Annotated[int | None, typer.Option(help="5 by default.")] = None,
    patch_size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width; by the images otherwise.")
    ] = None,
    axis: Annotated[int | None, typer.Option(help="Of volumes: 0, 1, 2 slices along z, y, x.")] = (
        None
    ),
    gpu_memory: Annotated[
        float | None,
        typer.Option(help="GB to propose a batch size for; this machine's GPU by default."),
    ] = None,
    preview: Annotated[
        Path | None, typer.Option(help=f"Where to draw some cases; {PREVIEW} beside the cache.")
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what is kept of the dataset before.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Cases at a time.")] = THREADS,
) -> None:
    """Check a dataset, decide how it is treated, and preprocess it.

    Every case is read, and all that is wrong with any is listed at the end. Training does the same
    first if it has not been done; done here, mistakes show before a GPU waits. What is chosen here
    holds for later trainings of the dataset. The cache is under SWIN_UMAMBA_CACHE, or where the
    platform keeps caches; swin-umamba cache lists it and removes it.
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
        from swin_umamba.data.prepare.prepared import prepare_dataset, remove_prepared
        from swin_umamba.data.prepare.preview import save_preview
        from swin_umamba.data.prepare.state import Choices

        if clean:
            remove_prepared(dataset)
        with PreparingBar() as bar:
            found = prepare_dataset(
                dataset,
                Choices(),
                changes={name: value for name, value in given.items() if value is not None},
                keep=True,
                threads=threads,
                on_progress=bar,
            )
        path = preview or found.folder / PREVIEW
        save_preview(path, found.cases.volumes, found.plan.spacing)
    for warning in found.warnings:
        problem(warning, word="warning", style="yellow")
    _say(found, path)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _say(found: PreparedDataset, preview: Path) -> None:
    from swin_umamba.data.prepare.kept import bytes_of

    plan = found.plan
    facts = Table(show_header=False, box=None, pad_edge=False)
    volumes = found.cases.volumes
    slices = f", {len(found.cases)} slices" if len(found.cases) > len(volumes) else ""
    facts.add_row("Cases", f"{len(volumes)}{slices}")
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
    return f"{len(sizes)}, with {', '.join(map(str, sizes))} cases to validate on"


def _channels(plan: Plan) -> list[str]:
    masked = plan.mask_normalization or (False,) * plan.in_channels
    return [
        f"{name} ({scheme}{' of what is not zero' if inside else ''})"
        for name, scheme, inside in zip(plan.channel_names, plan.normalization, masked, strict=True)
    ]


def _classes(found: PreparedDataset) -> list[tuple[str, str]]:
    """Of each class the share of its pixels and in how many cases it is."""
    counts = list(found.counts.values())
    known = max(sum(sum(row[1:]) for row in counts), 1)
    return [
        (
            name,
            f"{sum(row[label + 1] for row in counts) / known:.2%} of the pixels, in"
            f" {sum(row[label + 1] > 0 for row in counts)} cases",
        )
        for name, label in found.plan.labels.items()
    ]
