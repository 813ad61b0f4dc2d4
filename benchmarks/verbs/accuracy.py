"""`python -m benchmarks accuracy`: models trained for equal time, and scored."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path
from typing import Any

from benchmarks.render import accuracy_report
from benchmarks.training import accuracy


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    accurate = verbs.add_parser(
        "accuracy",
        help="train models on datasets for equal time, and score them",
        description=accuracy.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    accurate.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    accurate.add_argument("--models", nargs="+", default=accuracy.MODELS)
    accurate.add_argument("--minutes", type=float, default=3.0, help="of each training (3)")
    accurate.add_argument(
        "--seeds", nargs="+", type=int, default=[1], help="how many, for all or for each dataset"
    )
    accurate.add_argument(
        "--transfer",
        nargs="+",
        default=[],
        metavar="A:B:MODEL",
        help="names of datasets: also train on B with the encoder that was trained on A",
    )
    accurate.add_argument("--devices", nargs="+", default=["cuda:0"], help="default cuda:0")
    accurate.add_argument("--at-once", type=int, default=1, help="trainings on a device (1)")
    accurate.add_argument(
        "--together",
        action="store_true",
        help="the models of one dataset and seed at once on one device; --at-once counts seeds",
    )
    accurate.add_argument(
        "--start-until",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="start no training later than this: another call takes the rest",
    )
    accurate.add_argument(
        "--earlier",
        type=Path,
        metavar="JSON",
        help="a file of the same command, commit and kind of device, whose scores to take over",
    )
    accurate.add_argument(
        "--train", default="", metavar="OPTIONS", help="of `swin-umamba train`, for all"
    )
    accurate.add_argument(
        "--train-for",
        nargs="+",
        default=[],
        metavar="NAME=OPTIONS",
        help="further options for a dataset, a model, or DATASET:MODEL",
    )
    accurate.add_argument("--work", type=Path, required=True, help="folder for the runs")
    accurate.add_argument(
        "--out", type=Path, help="JSON file to write, with .md and .png beside it"
    )
    accurate.add_argument("--commit", help="the commit, where this tree is a copy without git")
    accurate.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    by_name = {dataset.name: dataset for dataset in args.datasets}
    transfers = [text.split(":") for text in args.transfer]
    for parts in transfers:
        if len(parts) != 3:
            raise ValueError(f"--transfer has {':'.join(parts)}, expected A:B:MODEL")
    options_of = [pair.partition("=")[::2] for pair in args.train_for]
    both = [f"{name}:{model}" for name in by_name for model in args.models]
    for names, known in (
        ([name for a, b, _ in transfers for name in (a, b)], list(by_name)),
        ([name for name, _ in options_of], [*by_name, *args.models, *both]),
    ):
        for name in names:
            if name not in known:
                raise ValueError(f"got {name!r}, expected a name of {', '.join(known)}")
    settings = accuracy.Settings(
        datasets=args.datasets,
        work=args.work,
        models=args.models,
        seeds=args.seeds,
        transfers=[(by_name[a], by_name[b], model) for a, b, model in transfers],
        minutes=args.minutes,
        devices=args.devices,
        at_once=args.at_once,
        together=args.together,
        start_until=args.start_until,
        options=shlex.split(args.train),
        options_of={name: shlex.split(text) for name, text in options_of},
    )
    earlier = None if args.earlier is None else _facts(args.earlier)
    facts = accuracy.run(settings, tree=args.commit, out=args.out, earlier=earlier)
    text = accuracy_report.markdown(facts)
    print(text)
    if args.out is not None:
        args.out.with_suffix(".md").write_text(f"{text}\n")
        accuracy_report.plot(facts, args.out.with_suffix(".png"))
    return int(any("reason" in made for made in facts["runs"]))


def _facts(path: Path) -> dict[str, Any]:
    facts = accuracy_report.load(path)
    if facts is None:
        raise ValueError(f"--earlier has {path}, which holds no accuracies")
    return facts
