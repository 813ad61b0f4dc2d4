"""`python -m benchmarks pretraining`: what pretrained encoders bring."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.render import accuracy_report, pretraining_report
from benchmarks.training import accuracy, pretraining


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    verb = verbs.add_parser(
        "pretraining",
        help="pretrain encoders, and fine-tune them beside scratch and baselines",
        description=pretraining.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("images", type=Path, metavar="IMAGES")
    verb.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    verb.add_argument("--models", nargs="+", default=pretraining.MODELS)
    verb.add_argument("--encoders", nargs="+", default=pretraining.ENCODERS)
    verb.add_argument("--baselines", nargs="*", default=pretraining.BASELINES)
    verb.add_argument("--pretrain-minutes", type=float, default=7.3, help="of each (7.3)")
    verb.add_argument(
        "--pretrain", default="", metavar="OPTIONS", help="of `swin-umamba pretrain`, for all"
    )
    verb.add_argument("--minutes", type=float, default=3.0, help="of each training (3)")
    verb.add_argument(
        "--seeds", nargs="+", type=int, default=[3], help="how many, for all or for each dataset"
    )
    verb.add_argument(
        "--start",
        default=shlex.join(pretraining.FINE_TUNING),
        metavar="OPTIONS",
        help="of `swin-umamba train`, for arms that start from an encoder (%(default)s)",
    )
    verb.add_argument(
        "--arm", nargs="+", default=[], metavar="NAME=OPTIONS", help="further trainings to compare"
    )
    verb.add_argument("--train", default="", metavar="OPTIONS", help="of `swin-umamba train`")
    verb.add_argument(
        "--train-for",
        nargs="+",
        default=[],
        metavar="NAME=OPTIONS",
        help="further options for a dataset, an arm, or DATASET:ARM",
    )
    verb.add_argument(
        "--half-windows", action="store_true", help="score with windows of half the side, too"
    )
    verb.add_argument("--devices", nargs="+", default=["cuda:0"], help="default cuda:0")
    verb.add_argument("--at-once", type=int, default=1, help="seeds at once on a device (1)")
    verb.add_argument("--start-until", type=float, default=math.inf, metavar="SECONDS")
    verb.add_argument("--work", type=Path, required=True, help="folder for the runs")
    verb.add_argument("--out", type=Path, help="JSON file to write, with .md and .png beside it")
    verb.add_argument("--commit", help="the commit, where this tree is a copy without git")
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    settings = pretraining.Settings(
        args.images,
        accuracy.Settings(
            datasets=args.datasets,
            work=args.work,
            seeds=args.seeds,
            minutes=args.minutes,
            devices=args.devices,
            at_once=args.at_once,
            together=True,
            half_windows=args.half_windows,
            start_until=args.start_until,
            options=shlex.split(args.train),
            options_of=_named(args.train_for),
        ),
        models=args.models,
        encoders=args.encoders,
        baselines=args.baselines,
        minutes=args.pretrain_minutes,
        pretraining=shlex.split(args.pretrain),
        start=shlex.split(args.start),
        arms=_named(args.arm),
    )
    _require_known(settings)
    facts = pretraining.run(settings, tree=args.commit, out=args.out)
    text = pretraining_report.markdown(facts)
    print(text)
    if args.out is not None:
        args.out.with_suffix(".md").write_text(f"{text}\n")
        accuracy_report.plot(facts, args.out.with_suffix(".png"))
    return int(any("reason" in made for made in facts["runs"]))


def _named(texts: list[str]) -> dict[str, Sequence[str]]:
    pairs = [text.partition("=")[::2] for text in texts]
    return {name: shlex.split(options) for name, options in pairs}


def _require_known(settings: pretraining.Settings) -> None:
    arms = list(pretraining.arms(settings))
    datasets = [dataset.name for dataset in settings.fine_tuning.datasets]
    known = [*datasets, *arms, *(f"{dataset}:{arm}" for dataset in datasets for arm in arms)]
    for name in settings.fine_tuning.options_of:
        if name not in known:
            raise ValueError(f"--train-for: got {name!r}, expected one of {', '.join(known)}")
