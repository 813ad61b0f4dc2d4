"""`python -m benchmarks model`: training steps and inference."""

from __future__ import annotations

import argparse

from benchmarks.models import competitors as models
from benchmarks.models import run as model_run
from benchmarks.verbs.options import (
    add_measuring,
    add_model_choice,
    chosen_device,
    entered_models,
    model_cases,
    model_dtypes,
    reported,
)


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    model = verbs.add_parser(
        "model",
        help="measure training step and inference of the models",
        description=models.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_choice(model)
    model.add_argument("--modes", nargs="+", choices=model_run.MODES, default=model_run.MODES)
    add_measuring(model, cell_seconds=1.0)
    model.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    settings = _settings(args)
    entered = entered_models(args, settings.device)
    return reported(args, model_run.run(settings, entered, tree=args.commit, out=args.out))


def _settings(args: argparse.Namespace) -> model_run.Settings:
    device = chosen_device(args)
    return model_run.Settings(
        device=device,
        models=models.with_encoders(args.models, args.encoder),
        cases=model_cases(args),
        modes=args.modes,
        dtypes=model_dtypes(args, device),
        rounds=args.rounds,
        cell_seconds=0.02 if args.tiny else args.cell_seconds,
        budget_seconds=args.budget_seconds,
        tiny=args.tiny,
        cudnn_benchmark=args.cudnn_benchmark,
    )
