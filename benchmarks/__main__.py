"""The command line: `python -m benchmarks VERB --help`."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    accuracy,
    accuracy_report,
    cases,
    competitors,
    cpu_run,
    model_run,
    models,
    peers,
    plot,
    profiling,
    readme,
    report,
    results,
    scale,
    sweep,
)
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
    ops.add_argument("--graph", action="store_true", help="also time CUDA graph replays of each")
    _add_measuring(ops, cell_seconds=0.15)

    model = verbs.add_parser(
        "model",
        help="measure training step and inference of the models",
        description=models.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model_choice(model)
    model.add_argument("--modes", nargs="+", choices=model_run.MODES, default=model_run.MODES)
    _add_measuring(model, cell_seconds=1.0)

    cpu = verbs.add_parser(
        "cpu",
        help="measure the CPU backend: goals, threads, sizes of images, training",
        description=cpu_run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = tuple(cpu_run.PARTS)
    cpu.add_argument("--parts", nargs="+", choices=parts, default=parts)
    _add_measuring(cpu, cell_seconds=1.0, rounds=15)

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
    _add_measuring(scaled, cell_seconds=10.0, rounds=2)

    _add_accuracy(verbs)
    sweep.add_verb(verbs)

    profiled = verbs.add_parser("profile", help="a model's time by kernel")
    _add_model_choice(profiled)
    profiled.add_argument("--mode", choices=model_run.MODES, default="training")
    profiled.add_argument("--rows", type=int, default=40, help="kernels to list (40)")
    profiled.add_argument("--tiny", action="store_true", help="a tiny model: a check")

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

    remade = verbs.add_parser(
        "readme", help="the tables and pictures of README and docs from the results files"
    )
    remade.add_argument(
        "--check", action="store_true", help="only say which tables are not up to date"
    )
    return parser


def _add_accuracy(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _accuracy(args: argparse.Namespace) -> int:
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
    earlier = None if args.earlier is None else _accuracy_facts(args.earlier)
    facts = accuracy.run(settings, tree=args.commit, out=args.out, earlier=earlier)
    text = accuracy_report.markdown(facts)
    print(text)
    if args.out is not None:
        args.out.with_suffix(".md").write_text(f"{text}\n")
        accuracy_report.plot(facts, args.out.with_suffix(".png"))
    return int(any("reason" in made for made in facts["runs"]))


def _accuracy_facts(path: Path) -> dict[str, Any]:
    facts = accuracy_report.load(path)
    if facts is None:
        raise ValueError(f"--earlier has {path}, which holds no accuracies")
    return facts


def _add_model_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--models", nargs="+", choices=models.NAMES, default=models.NAMES)
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


def _add_measuring(parser: argparse.ArgumentParser, cell_seconds: float, rounds: int = 3) -> None:
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
    parser.add_argument("--tiny", action="store_true", help="tiny cases, few repetitions: a check")
    parser.add_argument("--out", type=Path, help="JSON file to write, after every case")
    parser.add_argument("--commit", help="the commit, where this tree is a copy without git")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="JSON",
        help="compare with an earlier file; exit 1 if something of ours is slower",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        help="relative slowdown that --against lets pass (0.1)",
    )


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


def _device(args: argparse.Namespace) -> torch.device:
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _settings(args: argparse.Namespace) -> running.Settings:
    device = _device(args)
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


def _entered_models(args: argparse.Namespace, device: torch.device) -> list[models.ModelCompetitor]:
    everyone = models.competitors(device)
    if args.competitors is None:
        return everyone
    unknown = set(args.competitors) - {c.name for c in everyone}
    if unknown:
        known = ", ".join(repr(c.name) for c in everyone)
        raise ValueError(f"--competitors has {sorted(unknown)}, expected of {known}")
    return [c for c in everyone if c.name in args.competitors]


def _model_cases(args: argparse.Namespace) -> tuple[cases.ModelCase, ...]:
    if args.shapes is None:
        return cases.MODEL_GROUPS["tiny" if args.tiny else "table"]
    return tuple(cases.parse_model_case(text) for text in args.shapes)


def _model_settings(args: argparse.Namespace) -> model_run.Settings:
    device = _device(args)
    return model_run.Settings(
        device=device,
        models=args.models,
        cases=_model_cases(args),
        modes=args.modes,
        dtypes=_model_dtypes(args, device),
        rounds=args.rounds,
        cell_seconds=0.02 if args.tiny else args.cell_seconds,
        budget_seconds=args.budget_seconds,
        tiny=args.tiny,
        cudnn_benchmark=args.cudnn_benchmark,
    )


def _scale_settings(args: argparse.Namespace) -> scale.Settings:
    if min(args.processes) < 1:
        raise ValueError(f"--processes has {min(args.processes)}, expected 1 and above")
    chosen = [scale.TINY_CASE if args.tiny else scale.CASE]
    if args.shapes is not None:
        chosen = [cases.parse_model_case(text) for text in args.shapes]
    return scale.Settings(
        device=_device(args).type,
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


def _model_dtypes(args: argparse.Namespace, device: torch.device) -> list[str]:
    return args.dtypes or ["float16" if device.type == "cuda" else "float32"]


def _profile(args: argparse.Namespace) -> int:
    device = _device(args)
    for model in args.models:
        for competitor in _entered_models(args, device):
            missing = competitor.why_missing(model)
            if missing is not None:
                print(f"{competitor.name}, {model}: missing: {missing}\n")
                continue
            for case in _model_cases(args):
                for dtype in _model_dtypes(args, device):
                    text = profiling.table(
                        competitor,
                        model,
                        case,
                        dtype,
                        device,
                        mode=args.mode,
                        rows=args.rows,
                        tiny=args.tiny,
                        cudnn_benchmark=args.cudnn_benchmark,
                    )
                    print(f"{text}\n", flush=True)
    return 0


def _measured(args: argparse.Namespace) -> int:
    """The verbs that measure: report, compare, and say by the status what is amiss."""
    old = None if args.against is None else results.load(args.against)
    if args.verb == "ops":
        settings = _settings(args)
        entered = _entered(args, settings.device)
        found = running.run(settings, entered, tree=args.commit, out=args.out)
    elif args.verb == "cpu":
        cpu_settings = cpu_run.Settings(args.parts, args.rounds, args.cell_seconds, args.tiny)
        found = cpu_run.run(cpu_settings, tree=args.commit, out=args.out)
    elif args.verb == "scale":
        found = scale.run(_scale_settings(args), tree=args.commit, out=args.out)
    else:
        model_settings = _model_settings(args)
        model_entered = _entered_models(args, model_settings.device)
        found = model_run.run(model_settings, model_entered, tree=args.commit, out=args.out)
    print(report.markdown(found))
    failed = any(row.ours and row.status in (results.WRONG, results.FAILED) for row in found.rows)
    if args.verb == "cpu" and not args.tiny:  # tiny cases are all overhead
        failed = failed or bool(cpu_run.missed_goals(found))
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
        if args.verb in ("ops", "model", "cpu", "scale"):
            return _measured(args)
        if args.verb == "profile":
            return _profile(args)
        if args.verb == "accuracy":
            return _accuracy(args)
        if args.verb == "sweep":
            return sweep.command(args, _device(args))
        if args.verb == "readme":
            root = Path(__file__).parents[1]
            paths = readme.stale(root) if args.check else readme.remake(root)
            print(*paths, sep="\n")
            return int(args.check and bool(paths))
        if args.verb == "plot":
            trained = accuracy_report.load(args.file)
            if trained is None:
                paths = plot.plot(results.load(args.file), args.to, args.prefix)
            else:
                paths = [args.to / f"{args.prefix}{args.file.stem}.png"]
                accuracy_report.plot(trained, paths[0])
            print(*paths, sep="\n")
            return 0
        text = readme.markdown_of(args.file)
        if args.into is None:
            print(text)
        else:
            report.insert(text, args.into)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
