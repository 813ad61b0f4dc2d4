"""`python -m benchmarks inference`: one large image by sliding windows."""

from __future__ import annotations

import argparse

from benchmarks.models import competitors as models
from benchmarks.models import large_images
from benchmarks.verbs.options import add_device, add_output, chosen_device


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's options."""
    parser = verbs.add_parser(
        "inference",
        help="measure the prediction of a large image: time, the device's share, memory",
        description=large_images.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_device(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*models.NAMES, large_images.DYNUNET),
        default=("swin_umamba_d",),
    )
    parser.add_argument("--side", type=int, default=8192, help="of the image (8192)")
    parser.add_argument("--patch", type=int, default=320, help="side of a window (320)")
    parser.add_argument("--batch", type=int, help="windows at a time; default: Predictor's")
    parser.add_argument("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto")
    parser.add_argument("--rounds", type=int, default=2, help="the least time counts (2)")
    parser.add_argument(
        "--graphs",
        nargs="+",
        choices=("auto", "true", "false"),
        default=("auto",),
        help="cuda_graph of Predictor, each in turn",
    )
    add_output(parser, tiny="a small image and model: a check")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    words: dict[str, bool | str] = {"auto": "auto", "true": True, "false": False}
    settings = large_images.Settings(
        device=chosen_device(args),
        models=tuple(args.models),
        side=96 if args.tiny else args.side,
        patch=32 if args.tiny else args.patch,
        batch=args.batch,
        amp=args.amp,
        rounds=1 if args.tiny else args.rounds,
        graphs=tuple(words[word] for word in args.graphs),
        tiny=args.tiny,
    )
    print(large_images.markdown(large_images.run(settings, tree=args.commit, out=args.out)))
    return 0
