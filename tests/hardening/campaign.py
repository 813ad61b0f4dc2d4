"""Run many attacks on a tiny run and count the outcomes: see docs/reliability.md.

    python tests/hardening/campaign.py --rounds 1000 --kills 50 --seed 0

Prints a Markdown table. A fault is printed with its kind and number, which `--only` and `--first`
repeat; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from attacks import ATTACKS, REFUSED, RIGHT
from kills import killed_prediction, killed_training
from squares import train_on_squares

SECONDS = 60  # seconds that one attack may take
FAULT = "fault"


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"it took more than {SECONDS} s")


def _ends(kind: str, number: int, seed: int, run: Path) -> str:
    rng = random.Random(zlib.crc32(kind.encode()) + 1_000_003 * seed + number)
    with tempfile.TemporaryDirectory() as work:
        signal.alarm(SECONDS)
        try:
            return ATTACKS[kind](rng, run, Path(work))
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            print(f"{kind} {number}:", traceback.format_exc(limit=-6), file=sys.stderr)
            return FAULT
        finally:
            signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000, help="attacks of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--kills", type=int, default=50, help="of training processes")
    parser.add_argument("--prediction-kills", type=int, default=50, help="of prediction processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_long)
    began, faults = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        train_on_squares(data)
        print("| what is attacked | attacks | right | refused | faults |\n|---|---|---|---|---|")
        for kind in args.only:
            numbers = range(args.first, args.first + args.rounds)
            ends = Counter(_ends(kind, number, args.seed, data / "run") for number in numbers)
            faults += ends[FAULT]
            counts = (ends[RIGHT], ends[REFUSED], ends[FAULT])
            print(f"| {kind} | {ends.total()} |", " | ".join(map(str, counts)), "|", flush=True)
        faults += _kills(args.kills, args.prediction_kills, args.seed, data, Path(folder))
    print(f"\n{time.monotonic() - began:.0f} s, seed {args.seed}, {faults} faults")
    return min(faults, 1)


def _kills(trainings: int, predictions: int, seed: int, data: Path, folder: Path) -> int:
    rng, faults = random.Random(seed), 0
    acts: dict[str, tuple[int, Callable[[Path, int], int]]] = {
        "a training, by SIGKILL": (trainings, lambda work, most: killed_training(rng, work, most)),
        "a prediction, by SIGKILL": (
            predictions,
            lambda work, most: killed_prediction(rng, data, work, most),
        ),
    }
    for name, (kills, act) in acts.items():
        met, failed, at = 0, 0, 0
        while met + failed < kills:
            work = folder / f"{name} {at}"
            work.mkdir()
            at += 1
            try:
                met += act(work, min(8, kills - met - failed))
            except Exception:  # noqa: BLE001 - as above
                print(f"{name}:", traceback.format_exc(limit=-6), file=sys.stderr)
                failed += 1
        print(f"| {name} | {met + failed} | {met} | 0 | {failed} |", flush=True)
        faults += failed
    return faults


if __name__ == "__main__":
    sys.exit(main())
