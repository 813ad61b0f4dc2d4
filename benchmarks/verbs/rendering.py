"""`python -m benchmarks report, plot and readme`: pages and pictures from results files."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.measuring import results
from benchmarks.ops import sweep
from benchmarks.render import accuracy_report, plot, readme, report, sweep_plot

_ROOT = Path(__file__).resolve().parents[2]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verbs' options."""
    made = verbs.add_parser("report", help="Markdown from a results file")
    made.add_argument("file", type=Path)
    made.add_argument(
        "--into",
        type=Path,
        metavar="MARKDOWN",
        help=f"replace what is between {report.BEGIN} and {report.END} there",
    )
    made.set_defaults(run=_report)

    drawn = verbs.add_parser("plot", help="PNG plots from a results file")
    drawn.add_argument("file", type=Path)
    drawn.add_argument("--to", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    drawn.add_argument("--prefix", default="", help="of the file names")
    drawn.set_defaults(run=_plot)

    remade = verbs.add_parser(
        "readme", help="the tables and pictures of README and docs from the results files"
    )
    remade.add_argument(
        "--check", action="store_true", help="only say which tables are not up to date"
    )
    remade.set_defaults(run=_readme)


def _report(args: argparse.Namespace) -> int:
    text = readme.markdown_of(args.file)
    if args.into is None:
        print(text)
    else:
        report.insert(text, args.into)
    return 0


def _plot(args: argparse.Namespace) -> int:
    trained, swept = accuracy_report.load(args.file), sweep.load(args.file)
    if swept is not None:
        paths = [args.to / f"{args.prefix}{args.file.stem}.png"]
        sweep_plot.plot(*swept, paths[0])
    elif trained is None:
        paths = plot.plot(results.load(args.file), args.to, args.prefix)
    else:
        paths = [args.to / f"{args.prefix}{args.file.stem}.png"]
        accuracy_report.plot(trained, paths[0])
    print(*paths, sep="\n")
    return 0


def _readme(args: argparse.Namespace) -> int:
    paths = readme.stale(_ROOT) if args.check else readme.remake(_ROOT)
    print(*paths, sep="\n")
    return int(args.check and bool(paths))
