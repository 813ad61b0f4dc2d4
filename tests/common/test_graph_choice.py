"""Whether calls run as a CUDA graph is decided from the times of both variants."""

from __future__ import annotations

import pytest

from swin_umamba.common.graph_choice import COUNTED, SETTLING, GraphChoice


def _never() -> str:
    raise AssertionError("no graph was to be captured")


def _failing() -> str:
    raise RuntimeError("operation not permitted\nwhen stream is capturing")


def _decided(single: float, graph: float) -> GraphChoice[str]:
    choice: GraphChoice[str] = GraphChoice("auto")
    for seconds in (single, graph):
        for number in range(SETTLING + COUNTED):
            assert choice.open
            expected = "graph" if seconds is graph else None
            assert choice.graph((lambda: "graph") if seconds is graph else _never) == expected
            choice.count(9.0 if number < SETTLING else seconds)
    assert not choice.open
    return choice


def test_the_faster_way_is_kept_and_reported_once() -> None:
    choice = _decided(0.1, 0.025)
    assert choice.graph(_never) == "graph"
    assert choice.news() == "on: 25.0 ms a step as a CUDA graph, 100.0 ms without"
    assert choice.news() is None
    choice.count(5.0)
    assert choice.on


def test_a_graph_must_gain_something() -> None:
    choice = _decided(0.1, 0.099)
    assert not choice.on
    assert choice.graph(_never) is None
    assert choice.news() == "off: 99.0 ms a step as a CUDA graph, 100.0 ms without"
    assert _decided(0.1, 0.096).on


@pytest.mark.parametrize("wanted", [True, False])
def test_what_was_asked_for_is_not_measured(wanted: bool) -> None:
    choice: GraphChoice[str] = GraphChoice(wanted, "on a CPU")
    for _ in range(99):
        choice.count(1.0)
    assert choice.graph(lambda: "graph") == ("graph" if wanted else None)
    assert choice.news() is None


def test_a_reason_against_graphs() -> None:
    choice: GraphChoice[str] = GraphChoice("auto", "several processes exchange gradients")
    assert choice.graph(_never) is None
    assert not choice.open
    assert choice.news() == "off: several processes exchange gradients"


def test_a_capture_that_fails_is_reported_and_not_tried_again() -> None:
    choice = _decided(0.1, 0.025)
    choice.news()
    choice.drop()
    assert choice.graph(_failing) is None
    assert choice.news() == "off: a step could not be captured: operation not permitted"
    assert choice.graph(_never) is None
    required: GraphChoice[str] = GraphChoice(True)
    with pytest.raises(RuntimeError, match="not permitted"):
        required.graph(_failing)


def test_fewer_calls_may_decide_and_have_another_name() -> None:
    choice: GraphChoice[str] = GraphChoice("auto", settling=1, counted=1, what="a batch")
    for seconds in (9.0, 0.1, 9.0, 0.01):
        choice.graph(lambda: "graph")
        choice.count(seconds)
    assert choice.news() == "on: 10.0 ms a batch as a CUDA graph, 100.0 ms without"
