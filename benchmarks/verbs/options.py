"""Options shared by several verbs, and the final steps of the measuring ones."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.measuring import cases, results
from benchmarks.models import competitors as models
from benchmarks.render import report
from swin_umamba.common.encoders import DEFAULT_ENCODER, encoder_names


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")


def add_output(
    parser: argparse.ArgumentParser,
    tiny: str = "tiny cases, few repetitions: a check",
    out: str = "JSON file to write",
) -> None:
    """Whether it is only a check, where results go, and what they are of."""
    parser.add_argument("--tiny", action="store_true", help=tiny)
    parser.add_argument("--out", type=Path, help=out)
    parser.add_argument("--commit", help="the commit, where this tree is a copy without git")


def add_measuring(parser: argparse.ArgumentParser, cell_seconds: float, rounds: int = 3) -> None:
    """Options that the measuring verbs share."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"turns of each competitor ({rounds})"
    )
    parser.add_argument(
        "--cell-seconds",
        type=float,
        default=cell_seconds,
        help=f"time spent on one measurement ({cell_seconds})",
    )
    parser.add_argument(
        "--budget-seconds", type=float, help="shorten or leave out measurements to end about here"
    )
    add_output(parser, out="JSON file to write, after every case")
    parser.add_argument(
        "--against",
        type=_earlier,
        metavar="JSON",
        help="compare with an earlier file; exit 1 if something of ours is slower",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        help="relative slowdown that --against lets pass (0.1)",
    )


def _earlier(path: str) -> results.Results:
    """A results file, read before anything is measured."""
    return results.load(Path(path))


def add_model_choice(parser: argparse.ArgumentParser) -> None:
    add_device(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*models.NAMES, *models.BASELINES),
        default=models.NAMES,
        help=f"default {' '.join(models.NAMES)}; {' and '.join(models.BASELINES)} are nnU-Net's",
    )
    parser.add_argument(
        "--encoder",
        nargs="+",
        choices=encoder_names(),
        default=[DEFAULT_ENCODER],
        metavar="NAME",
        help=f"of {', '.join(encoder_names())}; every model with every one that it takes; default"
        f" {DEFAULT_ENCODER}",
    )
    parser.add_argument("--shapes", nargs="+", metavar="BxHxW", help="instead of the table's")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=("float32", "float16", "bfloat16"),
        help="half dtypes run under autocast; default float16 on a GPU, float32 on a CPU",
    )
    parser.add_argument(
        "--cudnn-benchmark",
        action="store_true",
        help="let cuDNN try its algorithms for every shape, as nnU-Net does: slow to start",
    )
    parser.add_argument(
        "--competitors",
        nargs="+",
        metavar="NAME",
        help="of 'ours', 'ours, graph', 'ours, compiled', release; default all",
    )


def chosen_device(args: argparse.Namespace) -> torch.device:
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def entered_models(args: argparse.Namespace, device: torch.device) -> list[models.ModelCompetitor]:
    everyone = models.competitors(device)
    if args.competitors is None:
        return everyone
    unknown = set(args.competitors) - {c.name for c in everyone}
    if unknown:
        known = ", ".join(repr(c.name) for c in everyone)
        raise ValueError(f"--competitors has {sorted(unknown)}, expected of {known}")
    return [c for c in everyone if c.name in args.competitors]


def model_cases(args: argparse.Namespace) -> tuple[cases.ModelCase, ...]:
    if args.shapes is None:
        return cases.MODEL_GROUPS["tiny" if args.tiny else "table"]
    return tuple(cases.parse_model_case(text) for text in args.shapes)


def model_dtypes(args: argparse.Namespace, device: torch.device) -> list[str]:
    return args.dtypes or ["float16" if device.type == "cuda" else "float32"]


def reported(args: argparse.Namespace, found: results.Results) -> int:
    """Print the tables, compare with --against; 1 if one of ours is wrong, fails or got slower."""
    print(report.markdown(found))
    failed = any(row.ours and row.status in (results.WRONG, results.FAILED) for row in found.rows)
    if args.against is None:
        return int(failed)
    both = results.changes(args.against, found)
    print(report.against(args.against, found, both, args.tolerance))
    ours = {row.competitor for row in found.rows if row.ours}
    slower = any(c.is_slower(args.tolerance) for c in both if c.key[-1] in ours)
    return int(failed or slower)
