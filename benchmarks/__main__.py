"""The command line: `python -m benchmarks VERB --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import cases, competitors, peers, plot, report, results
from benchmarks import run as running


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    ops = verbs.add_parser(
        "ops",
        help="measure the scans",
        description=peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ops.add_argument("--device", help="default: cuda if there is one, else cpu")
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
    ops.add_argument("--rounds", type=int, default=3, help="turns of each competitor (3)")
    ops.add_argument(
        "--cell-seconds", type=float, default=0.15, help="time spent on one measurement (0.15)"
    )
    ops.add_argument(
        "--budget-seconds", type=float, help="shorten or leave out measurements to end about here"
    )
    ops.add_argument("--graph", action="store_true", help="also time ours as CUDA graph replays")
    ops.add_argument("--tiny", action="store_true", help="tiny cases, few repetitions: a check")
    ops.add_argument("--out", type=Path, help="JSON file to write, after every case")
    ops.add_argument("--commit", help="the commit, where this tree is a copy without git")
    ops.add_argument(
        "--against",
        type=Path,
        metavar="JSON",
        help="compare with an earlier file; exit 1 if something of ours is slower",
    )
    ops.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        help="relative slowdown that --against lets pass (0.1)",
    )

    made = verbs.add_parser("report", help="Markdown from a results file")
    made.add_argument("file", type=Path)
    made.add_argument(
        "--into",
        type=Path,
        metavar="MARKDOWN",
        help=f"replace what is between {report.BEGIN} and {report.END} there",
    )

    drawn = verbs.add_parser("plot", help="PNG plots from a results file")
    drawn.add_argument("file", type=Path)
    drawn.add_argument("--to", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    drawn.add_argument("--prefix", default="", help="of the file names")
    return parser


_ALL_MODES = sorted({mode for modes in running.MODES.values() for mode in modes})


def _entered(args: argparse.Namespace, device: torch.device) -> list[competitors.Competitor]:
    everyone = [*competitors.ours(device), *peers.peers(device)]
    if args.competitors is None:
        return [c for c in everyone if c.name != "pytorch" or device.type == "cpu"]
    unknown = set(args.competitors) - {c.name for c in everyone}
    if unknown:
        known = ", ".join(c.name for c in everyone)
        raise ValueError(f"--competitors has {', '.join(sorted(unknown))}, expected of {known}")
    return [c for c in everyone if c.name in args.competitors]


def _settings(args: argparse.Namespace) -> running.Settings:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
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


def _ops(args: argparse.Namespace) -> int:
    settings = _settings(args)
    old = None if args.against is None else results.load(args.against)
    found = running.run(settings, _entered(args, settings.device), tree=args.commit, out=args.out)
    print(report.markdown(found))
    failed = any(row.ours and row.status in (results.WRONG, results.FAILED) for row in found.rows)
    if old is None:
        return int(failed)
    both = results.changes(old, found)
    print(report.against(old, found, both, args.tolerance))
    ours = {row.competitor for row in found.rows if row.ours}
    slower = any(c.is_slower(args.tolerance) for c in both if c.key[-1] in ours)
    return int(failed or slower)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 1 if one of ours is wrong, fails or got slower."""
    args = _parser().parse_args(argv)
    try:
        if args.verb == "ops":
            return _ops(args)
        found = results.load(args.file)
        if args.verb == "plot":
            for path in plot.plot(found, args.to, args.prefix):
                print(path)
        elif args.into is None:
            print(report.markdown(found))
        else:
            report.insert(report.markdown(found), args.into)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
