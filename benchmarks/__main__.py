"""The command line: `python -m benchmarks VERB --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.verbs import (
    accuracy,
    classes,
    cpu,
    inference,
    model,
    ops,
    pretraining,
    profile,
    rendering,
    scale,
    sweep,
)

VERBS = (
    ops,
    model,
    inference,
    cpu,
    scale,
    accuracy,
    pretraining,
    sweep,
    profile,
    classes,
    rendering,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in VERBS:
        verb.add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 1 if one of ours is wrong, fails or got slower."""
    try:
        args = _parser().parse_args(argv)
        status: int = args.run(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
