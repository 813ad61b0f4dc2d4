"""Whether work is launched as one CUDA graph: "auto" measures both and keeps the faster."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

CudaGraph = bool | Literal["auto"]

SETTLING = 5  # first calls of each variant, not counted: libraries select and build their kernels
COUNTED = 10  # counted calls of each variant, of which the median is used
GAIN = 0.97  # maximum ratio of a graph's time to that of single launches for it to be kept

_Graph = TypeVar("_Graph")


class GraphChoice(Generic[_Graph]):
    """Single launches or a graph for a repeated call, and that graph.

    wanted: the setting `cuda_graph`. why_not: why graphs are impossible here, None if they are
    possible. settling, counted: override SETTLING and COUNTED. what: one call, for the log.
    """

    def __init__(
        self,
        wanted: CudaGraph,
        why_not: str | None = None,
        *,
        settling: int | None = None,
        counted: int | None = None,
        what: str = "a step",
    ) -> None:
        self.on = wanted is True
        self.open = wanted == "auto" and why_not is None
        self._required = wanted is True
        self._settling = SETTLING if settling is None else settling
        self._counted = COUNTED if counted is None else counted
        self._what = what
        self._news = f"off: {why_not}" if wanted == "auto" and why_not is not None else None
        self._seconds: dict[bool, list[float]] = {False: [], True: []}
        self._graph: _Graph | None = None

    def graph(self, capture: Callable[[], _Graph]) -> _Graph | None:
        """The graph for the next call, captured if necessary; None for single launches.

        If capturing fails (a kernel or library refuses, out of memory), single launches are used
        from then on, unless the setting is true: then the RuntimeError is raised.
        """
        if self.on and self._graph is None:
            try:
                self._graph = capture()
            except RuntimeError as error:
                if self._required:
                    raise
                self.on = self.open = False
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self._news = f"off: {self._what} could not be captured: {reason}"
        return self._graph

    @property
    def captured(self) -> bool:
        """Whether there is a graph, which takes memory."""
        return self._graph is not None

    def drop(self) -> None:
        """Make the next call capture a new graph, since its launches have changed."""
        self._graph = None

    def count(self, seconds: float) -> None:
        """Record the time of the call just made, without waiting for data."""
        if not self.open:
            return
        taken = self._seconds[self.on]
        taken.append(seconds)
        if len(taken) < self._settling + self._counted:
            return
        if not self.on:
            self.on = True
            return
        single, graph = (
            1e3 * statistics.median(self._seconds[on][self._settling :]) for on in (False, True)
        )
        self.on, self.open = graph <= GAIN * single, False
        if not self.on:
            self._graph = None
        state = "on" if self.on else "off"
        self._news = (
            f"{state}: {graph:.1f} ms {self._what} as a CUDA graph, {single:.1f} ms without"
        )

    def news(self) -> str | None:
        """What was decided since the last call, for the log."""
        found, self._news = self._news, None
        return found
