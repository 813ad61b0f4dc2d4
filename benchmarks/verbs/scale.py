"""`python -m benchmarks scale`: training on one GPU and on several."""

from __future__ import annotations

import argparse

from benchmarks.measuring import cases
from benchmarks.models import competitors as models
from benchmarks.training import scale
from benchmarks.verbs.options import add_measuring, chosen_device, reported


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    scaled = verbs.add_parser(
        "scale",
        help="measure training on one GPU and on several",
        description=scale.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scaled.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    scaled.add_argument(
        "--processes", nargs="+", type=int, default=(1, 2), metavar="N", help="default 1 2"
    )
    scaled.add_argument("--models", nargs="+", choices=models.NAMES, default=models.NAMES[:2])
    scaled.add_argument("--shapes", nargs="+", metavar="BxHxW", help="of each process's batch")
    scaled.add_argument("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto")
    scaled.add_argument("--augment", action="store_true", help="augment patches as training does")
    add_measuring(scaled, cell_seconds=10.0, rounds=2)
    scaled.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    return reported(args, scale.run(_settings(args), tree=args.commit, out=args.out))


def _settings(args: argparse.Namespace) -> scale.Settings:
    if min(args.processes) < 1:
        raise ValueError(f"--processes has {min(args.processes)}, expected 1 and above")
    chosen = [scale.TINY_CASE if args.tiny else scale.CASE]
    if args.shapes is not None:
        chosen = [cases.parse_model_case(text) for text in args.shapes]
    return scale.Settings(
        device=chosen_device(args).type,
        processes=args.processes,
        models=args.models,
        cases=chosen,
        amp=args.amp,
        augment=args.augment,
        rounds=1 if args.tiny else args.rounds,
        cell_seconds=0.02 if args.tiny else args.cell_seconds,
        budget_seconds=args.budget_seconds,
        tiny=args.tiny,
    )
