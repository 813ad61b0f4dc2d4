"""`python -m benchmarks classes`: a step's kernels by class, with shares of their floors."""

from __future__ import annotations

import argparse

from benchmarks.measuring import cases
from benchmarks.models import competitors as models
from benchmarks.models import kernel_classes
from benchmarks.verbs.options import add_device, add_output, chosen_device, model_dtypes


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    parser = verbs.add_parser(
        "classes",
        help="a training step's kernels by class, and the share of its floor that each has",
        description=kernel_classes.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_device(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*models.NAMES, *models.BASELINES),
        default=("swin_umamba", "swin_umamba_d"),
    )
    parser.add_argument("--shape", default="30x320x320", metavar="BxHxW", help="(30x320x320)")
    parser.add_argument(
        "--dtypes",
        nargs=1,
        choices=("float32", "float16", "bfloat16"),
        help="half dtypes run under autocast; default float16 on a GPU, float32 on a CPU",
    )
    add_output(parser, tiny="a tiny model and batch: a check")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    device = chosen_device(args)
    (dtype,) = model_dtypes(args, device)
    case = cases.parse_model_case("1x32x32" if args.tiny else args.shape)
    settings = kernel_classes.Settings(device, args.models, case, dtype, args.tiny)
    print(kernel_classes.markdown(kernel_classes.run(settings, tree=args.commit, out=args.out)))
    return 0
