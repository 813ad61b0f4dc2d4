"""`python -m benchmarks sweep`: ss2d along channels, ranks and states."""

from __future__ import annotations

import argparse

from benchmarks.measuring import environment
from benchmarks.measuring.cases import DTYPES
from benchmarks.ops import sweep
from benchmarks.ops.run import default_dtypes
from benchmarks.verbs.options import add_device, add_output, chosen_device


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    swept = verbs.add_parser(
        "sweep",
        help="measure ss2d along channels, ranks and states: no size may be much slower",
        description=sweep.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_device(swept)
    swept.add_argument("--dtypes", nargs="+", choices=sorted(DTYPES), metavar="DTYPE")
    swept.add_argument("--competitors", nargs="+", metavar="NAME", help="of our backends")
    swept.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="processes that compile Triton's kernels beforehand (0: each when it is measured)",
    )
    swept.add_argument("--budget-seconds", type=float, help="leave out what is left after these")
    add_output(swept, out="JSON file to write, and a table beside it")
    swept.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    """Measure, print the tables and save them if requested. Returns 1 if there are cliffs."""
    device = chosen_device(args)
    dtypes = args.dtypes or default_dtypes("ss2d", device)
    repeats = 2 if args.tiny else 10
    points = sweep.run(
        device,
        dtypes,
        args.competitors,
        repeats=repeats,
        tiny=args.tiny,
        jobs=args.jobs,
        seconds=args.budget_seconds,
    )
    facts = environment.describe(device, args.commit)
    print(sweep.markdown(points, facts))
    if args.out is not None:
        sweep.save(points, facts, args.out)
    return int(not args.tiny and bool(sweep.cliffs(points)))
