"""The training progress bar, and the summary printed after every training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn
from typing_extensions import Self

from swin_umamba.cli.console import Words, out, progress
from swin_umamba.common.closing import Closing

if TYPE_CHECKING:
    from swin_umamba.runs.log import Record
    from swin_umamba.train import Progress

RECENT = 0.95  # weight of the previous value in the smoothed speed


class TrainingBar(Closing):
    """A context manager that yields a function of a Progress. The displayed speed is smoothed.

    score: label of the score.
    """

    def __init__(self, description: str = "Training", *, score: str = "DSC") -> None:
        self._bar = progress(
            SpinnerColumn(),
            Words("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            Words("loss {task.fields[loss]}"),
            Words(score + " {task.fields[dsc]}"),
            Words("{task.fields[speed]} images/s"),
            Words("{task.fields[left]} left"),
            console=out,
            transient=False,
        )
        self._task = self._bar.add_task(
            description, total=1.0, loss="-", dsc="-", speed="-", left="-"
        )
        self._speed: float | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def close(self) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        before = progress.images_per_second if self._speed is None else self._speed
        self._speed = RECENT * before + (1 - RECENT) * progress.images_per_second
        self._bar.update(
            self._task,
            completed=progress.done,
            loss="skipped" if progress.loss is None else f"{progress.loss:.3f}",
            dsc="-" if progress.dsc is None else f"{progress.dsc:.3f}",
            speed=f"{self._speed:.1f}",
            left=clock(progress.seconds_left),
        )


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def say_choice_of_graphs(records: Sequence[Record]) -> None:
    """Whether steps were CUDA graphs, and why, if that was decided by measuring."""
    found = [record["cuda_graph"] for record in records if "cuda_graph" in record]
    if found:
        out.print(f"cuda_graph {found[-1]}")
