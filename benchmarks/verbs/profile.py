"""`python -m benchmarks profile`: a model's time by kernel."""

from __future__ import annotations

import argparse

from benchmarks.models import competitors as models
from benchmarks.models import profiling
from benchmarks.models import run as model_run
from benchmarks.verbs.options import (
    add_model_choice,
    chosen_device,
    entered_models,
    model_cases,
    model_dtypes,
)


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    profiled = verbs.add_parser("profile", help="a model's time by kernel")
    add_model_choice(profiled)
    profiled.add_argument("--mode", choices=model_run.MODES, default="training")
    profiled.add_argument("--rows", type=int, default=40, help="kernels to list (40)")
    profiled.add_argument("--tiny", action="store_true", help="a tiny model: a check")
    profiled.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    device = chosen_device(args)
    for model in models.with_encoders(args.models, args.encoder):
        for competitor in models.forms_of(model, entered_models(args, device)):
            missing = competitor.why_missing(model)
            if missing is not None:
                print(f"{competitor.name}, {model}: missing: {missing}\n")
                continue
            for case in model_cases(args):
                for dtype in model_dtypes(args, device):
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
