"""`swin-umamba predict`: segment images with a trained run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.commands import DEVICES
from swin_umamba.cli.console import counted, err, errors_in_one_line, out, problem, progress

OUTPUT_TOO = "More output"  # title of an option group


def predict(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Run folder, cross-validation folder, or exported .onnx file. The probabilities of"
            " several are averaged.",
        ),
    ],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    output: Annotated[Path, typer.Argument(help="Folder for the masks.")],
    last: Annotated[
        bool, typer.Option("--last", help="Use the last weights instead of the best.")
    ] = False,
    save_probabilities: Annotated[
        bool,
        typer.Option(
            "--save-probabilities",
            help="Also write the probabilities of all classes, as .npz files beside the masks.",
            rich_help_panel=OUTPUT_TOO,
        ),
    ] = False,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Also number the 8-connected objects of class 1, in OUTPUT/instances, with 8, 16"
            " or (TIFF, NIfTI) 32 bits as needed.",
            rich_help_panel=OUTPUT_TOO,
        ),
    ] = False,
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlays",
            help="Also draw the classes over the images: PNG files in OUTPUT/overlays.",
            rich_help_panel=OUTPUT_TOO,
        ),
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Average over mirrored images: more accurate, four times the work.",
        ),
    ] = False,
    amp: Annotated[
        str, typer.Option(help="off (float32); 16-bit on a GPU: auto, bf16, fp16.")
    ] = "off",
    onnx: Annotated[
        bool, typer.Option("--onnx", help="RUN is an ONNX file, regardless of its name.")
    ] = False,
    postprocessing: Annotated[
        bool,
        typer.Option(
            help="Apply the run's postprocessing.json, if there is one: keep only the largest"
            " component of some classes.",
            show_default="apply",
            rich_help_panel="Postprocessing",
        ),
    ] = True,
    patch_size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH",
            help="Size of the sliding windows.",
            show_default="the training patch size",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    device: Annotated[str, typer.Option(help=DEVICES + ".")] = "auto",
) -> None:
    """Segment images; masks get each image's format, geometry and label values.

    Existing masks are skipped unless their image has changed, so an interrupted job continues when
    started again. OUTPUT/predictions.jsonl records what produced each file; files made by another
    model or with other options are an error without --overwrite. Images that fail are listed at the
    end, and the exit code is then 1.
    """
    with errors_in_one_line():
        with err.status("Loading"):
            from swin_umamba.inference.files import Extras, predict_files

        with progress() as bar:
            task = bar.add_task("Predicting", total=None)
            outcome = predict_files(
                runs,
                images,
                output,
                checkpoint="last" if last else "best",
                device=device,
                mirror=mirror,
                amp=amp,
                onnx=onnx,
                postprocessing=postprocessing,
                patch_size=patch_size,
                extras=Extras(save_probabilities, instances, overlays),
                overwrite=overwrite,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    existing = f", {len(outcome.skipped)} already existed" if outcome.skipped else ""
    redone = (
        f", {len(outcome.redone)} of them recomputed because their images changed"
        if outcome.redone
        else ""
    )
    out.print(f"{counted(len(outcome.done), 'mask')} in {output}{redone}{existing}", soft_wrap=True)
    if outcome.dark and not overlays:
        out.print(
            "Mask values are class numbers, so viewers show them nearly black; --overlays writes"
            " pictures to look at",
            soft_wrap=True,
        )
    if outcome.done and not outcome.failed:
        masks = shlex.quote(str(output))
        out.print(f"Next, with true masks: swin-umamba evaluate {masks} TRUTH", soft_wrap=True)
    for name, reason in outcome.failed.items():
        problem(reason, word=name)
    if outcome.failed:
        raise typer.Exit(1)
