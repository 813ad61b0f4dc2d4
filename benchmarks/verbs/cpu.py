"""`python -m benchmarks cpu`: the CPU backend."""

from __future__ import annotations

import argparse

from benchmarks.models import cpu as cpu_run
from benchmarks.verbs.options import add_measuring, reported


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    cpu = verbs.add_parser(
        "cpu",
        help="measure the CPU backend: goals, threads, sizes of images, training",
        description=cpu_run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = tuple(cpu_run.PARTS)
    cpu.add_argument("--parts", nargs="+", choices=parts, default=parts)
    add_measuring(cpu, cell_seconds=1.0, rounds=15)
    cpu.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    settings = cpu_run.Settings(args.parts, args.rounds, args.cell_seconds, args.tiny)
    found = cpu_run.run(settings, tree=args.commit, out=args.out)
    failed = reported(args, found)
    if args.tiny:  # tiny cases are all overhead
        return failed
    return int(failed or bool(cpu_run.missed_goals(found)))
