"""`swin-umamba export`: trained models for other runtimes."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from swin_umamba.cli.console import err, errors_in_one_line, out
from swin_umamba.errors import UserError

_PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")


class Format(str, Enum):
    """Formats that can be written."""

    onnx = "onnx"
    pt2 = "pt2"
    aoti = "aoti"


def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or weights (.safetensors).")],
    output: Annotated[Path, typer.Argument(help="File to write: .onnx or .pt2.")],
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="aoti is compiled ahead of time, as .pt2.",
            show_default="from the file name",
        ),
    ] = None,
    last: Annotated[
        bool,
        typer.Option(
            "--last/--no-last",
            help="Use the run's last weights instead of its best.",
            show_default=False,
        ),
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Backend of the scan in .pt2 files; export needs only PyTorch.",
            show_default="export; for aoti the fastest",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device for a .pt2 file: cpu or cuda.")] = "cpu",
) -> None:
    """Write a trained model for another runtime, with its preprocessing and labels.

    The exported file is verified first, and not written if its output differs from the model's by
    more than 1e-4.
    """
    with errors_in_one_line():
        kind = kind or _by_ending(output)
        if (kind is Format.onnx) != (output.suffix == ".onnx"):
            raise UserError(f"output: got {output.name}, expected a file name for {kind.value}")
        if kind is Format.onnx and (backend, device) != (None, "cpu"):
            raise UserError("--backend and --device apply to .pt2 files only, not to ONNX")
        _require_usable(backend, device)
        with err.status("Reading the model") as shown:
            use = {"on_step": lambda what: shown.update(what.capitalize())}
            error = _write(source, output, kind, last, backend, device, use)
    size = output.stat().st_size / 1e6
    out.print(
        f"{output}: {size:.1f} MB, logits within {error:.1g} of the model's",
        soft_wrap=True,
    )
    if kind is Format.onnx:
        name = shlex.quote(str(output))
        out.print(f"Next: swin-umamba predict {name} IMAGES OUTPUT", soft_wrap=True)


def _require_usable(backend: str | None, device: str) -> None:
    from swin_umamba.common.devices import pick_device
    from swin_umamba_ops import available_backends

    pick_device(device)
    reason = available_backends().get(backend or "")
    if reason is not None:
        raise UserError(f"backend {backend!r} cannot be used: {reason}")


def _by_ending(output: Path) -> Format:
    for kind in (Format.onnx, Format.pt2):
        if output.suffix == f".{kind.value}":
            return kind
    raise UserError(f"output: got {output.name}, expected an ending of .onnx or .pt2")


def _write(
    source: Path,
    output: Path,
    kind: Format,
    last: bool,
    backend: str | None,
    device: str,
    shown: dict[str, Any],
) -> float:
    from swin_umamba.export.source import load_source

    model, use = load_source(source, last=last)
    use |= shown
    try:
        if kind is Format.onnx:
            from swin_umamba.export.onnx_file import export_onnx

            return export_onnx(model, output, **use)
        from swin_umamba.export.torch_file import export_aot, export_pt2

        if kind is Format.aoti:
            return export_aot(model, output, backend=backend or "auto", device=device, **use)
        return export_pt2(model, output, backend=backend or "export", device=device, **use)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PACKAGES:
            raise
        raise UserError(f"this needs {error.name}: pip install 'swin-umamba[export]'") from error
    except ValueError as error:
        raise UserError(str(error)) from error
