"""`python -m benchmarks ops`: the scans beside their peers."""

from __future__ import annotations

import argparse

import torch

from benchmarks.measuring import cases
from benchmarks.ops import competitors, peers
from benchmarks.ops import run as running
from benchmarks.verbs.options import add_device, add_measuring, chosen_device, reported

_ALL_MODES = sorted({mode for modes in running.MODES.values() for mode in modes})


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    ops = verbs.add_parser(
        "ops",
        help="measure the scans",
        description=peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_device(ops)
    ops.add_argument(
        "--cases",
        nargs="+",
        choices=sorted(cases.GROUPS),
        metavar="GROUP",
        help=f"groups of shapes: {', '.join(sorted(cases.GROUPS))}; default table",
    )
    ops.add_argument("--shapes", nargs="+", metavar="BxDxHxW[xN]", help="shapes of your own")
    ops.add_argument(
        "--ops",
        nargs="+",
        choices=sorted(running.MODES),
        metavar="OP",
        help=f"of {', '.join(running.MODES)}; default all",
    )
    ops.add_argument(
        "--modes",
        nargs="+",
        choices=_ALL_MODES,
        metavar="MODE",
        help=f"of {', '.join(_ALL_MODES)}; default all",
    )
    ops.add_argument(
        "--dtypes",
        nargs="+",
        choices=sorted(cases.DTYPES),
        metavar="DTYPE",
        help="default float16 bfloat16 on a GPU, float32 on a CPU; half dtypes of "
        "ss2d run under autocast",
    )
    ops.add_argument(
        "--competitors",
        nargs="+",
        metavar="NAME",
        help="of our backends and mamba-ssm, vmamba, release; default all, but the "
        "pytorch backend on a CPU alone",
    )
    ops.add_argument("--graph", action="store_true", help="also time CUDA graph replays of each")
    add_measuring(ops, cell_seconds=0.15)
    ops.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    entered = _entered(args, settings.device)
    return reported(args, running.run(settings, entered, tree=args.commit, out=args.out))


def _settings(args: argparse.Namespace) -> running.Settings:
    device = chosen_device(args)
    groups = args.cases
    if groups is None and args.shapes is None:
        groups = ["tiny" if args.tiny else "table"]
    chosen = [case for group in groups or () for case in cases.GROUPS[group]]
    chosen += [cases.parse_case(text) for text in args.shapes or ()]
    chosen_ops = args.ops or list(running.MODES)
    return running.Settings(
        device=device,
        cases=chosen,
        ops=chosen_ops,
        modes=args.modes or _ALL_MODES,
        dtypes={op: args.dtypes or running.default_dtypes(op, device) for op in chosen_ops},
        rounds=args.rounds,
        cell_seconds=0.005 if args.tiny else args.cell_seconds,
        budget_seconds=args.budget_seconds,
        graph=args.graph,
        tiny=args.tiny,
    )


def _entered(args: argparse.Namespace, device: torch.device) -> list[competitors.Competitor]:
    everyone = [*competitors.ours(device), *peers.peers(device)]
    if args.competitors is None:
        return [c for c in everyone if c.name != "pytorch" or device.type == "cpu"]
    unknown = set(args.competitors) - {c.name for c in everyone}
    if unknown:
        known = ", ".join(c.name for c in everyone)
        raise ValueError(f"--competitors has {', '.join(sorted(unknown))}, expected of {known}")
    return [c for c in everyone if c.name in args.competitors]
