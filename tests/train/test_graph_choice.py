"""Whether steps run as a CUDA graph: decided from the times of both ways."""

from __future__ import annotations

import pytest

from swin_umamba.loop.graph_choice import COUNTED, SETTLING, GraphChoice


def _decided(single: float, graph: float) -> GraphChoice:
    choice = GraphChoice("auto")
    for seconds in (single, graph):
        for number in range(SETTLING + COUNTED):
            assert choice.open
            assert choice.on == (seconds is graph)
            choice.count(9.0 if number < SETTLING else seconds)
    assert not choice.open
    return choice


def test_the_faster_way_is_kept_and_reported_once() -> None:
    choice = _decided(0.1, 0.025)
    assert choice.on
    assert choice.news() == "on: 25.0 ms a step as a CUDA graph, 100.0 ms without"
    assert choice.news() is None
    choice.count(5.0)
    assert choice.on


def test_a_graph_must_gain_something() -> None:
    assert not _decided(0.1, 0.099).on
    assert _decided(0.1, 0.096).on


@pytest.mark.parametrize("wanted", [True, False])
def test_what_was_asked_for_is_not_measured(wanted: bool) -> None:
    choice = GraphChoice(wanted, "on a CPU")
    for _ in range(99):
        choice.count(1.0)
    assert choice.on is wanted
    assert choice.news() is None


def test_reasons_against_a_graph() -> None:
    choice = GraphChoice("auto", "several processes exchange gradients")
    assert not choice.on
    assert not choice.open
    assert choice.news() == "off: several processes exchange gradients"
    choice = GraphChoice("auto")
    choice.on = True
    choice.give_up(RuntimeError("operation not permitted\nwhen stream is capturing"))
    assert not choice.on
    assert choice.news() == "off: a step could not be captured: operation not permitted"
