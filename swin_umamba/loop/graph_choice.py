"""Whether the steps of a training are launched as one CUDA graph: "auto" keeps what is faster."""

from __future__ import annotations

import statistics

from swin_umamba.runs.config import CudaGraph

SETTLING = 5  # first steps of each way, not counted: libraries choose and build their kernels
COUNTED = 10  # steps of each way, of which the median counts
GAIN = 0.97  # a graph's time over that of single launches, at most, for it to be kept


class GraphChoice:
    """What the next step should be: `on`, a graph, or single launches.

    wanted: the setting `cuda_graph`. why_not: why graphs are impossible here, None if they are not.
    """

    def __init__(self, wanted: CudaGraph, why_not: str | None = None) -> None:
        self.on = wanted is True
        self.open = wanted == "auto" and why_not is None
        self.said = f"off: {why_not}" if wanted == "auto" and why_not is not None else None
        self._seconds: dict[bool, list[float]] = {False: [], True: []}

    def count(self, seconds: float) -> None:
        """Of the step that was just made, without waiting for data."""
        if not self.open:
            return
        taken = self._seconds[self.on]
        taken.append(seconds)
        if len(taken) < SETTLING + COUNTED:
            return
        if not self.on:
            self.on = True
            return
        single, graph = (
            1e3 * statistics.median(self._seconds[on][SETTLING:]) for on in (False, True)
        )
        self.on, self.open = graph <= GAIN * single, False
        state = "on" if self.on else "off"
        self.said = f"{state}: {graph:.1f} ms a step as a CUDA graph, {single:.1f} ms without"

    def give_up(self, error: Exception) -> None:
        """Go on with single launches, since a graph could not be captured."""
        self.on = self.open = False
        self.said = f"off: a step could not be captured: {str(error).splitlines()[0]}"

    def news(self) -> str | None:
        """What was decided since the last call, for the log."""
        said, self.said = self.said, None
        return said
