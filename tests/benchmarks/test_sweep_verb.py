"""`python -m benchmarks sweep`: every point is measured, and cliffs are named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.measuring.cases import Case
from benchmarks.ops import sweep
from benchmarks.ops.sweep import Point

FEW, MORE = (Case(30, D, 40, 40, 1, "sweep", 6) for D in (96, 192))


def test_every_point_is_measured_and_saved(tmp_path, capsys):
    path = tmp_path / "sweep.json"
    arguments = ["--tiny", "--device", "cpu", "--competitors", "cpu", "--out", str(path)]
    assert command.main(["sweep", *arguments]) == 0
    points = json.loads(path.read_text())["points"]
    assert {p["axis"] for p in points} == set(sweep.axes(tiny=True))
    if any(p["nanoseconds"] is None for p in points):
        pytest.skip(points[0]["reason"])
    assert {p["R"] for p in points} >= {1, 2, 6}
    assert capsys.readouterr().out.strip() == path.with_suffix(".md").read_text().strip()
    loaded = sweep.load(path)
    assert loaded is not None
    assert sweep.markdown(*loaded) + "\n" == path.with_suffix(".md").read_text()
    pytest.importorskip("matplotlib")
    assert command.main(["plot", str(path), "--to", str(tmp_path)]) == 0
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_sizes_include_odd_ranks_and_few_states():
    axes = sweep.axes(tiny=False)
    assert {case.R % 2 for case in axes["R, N=1"]} == {0, 1}
    assert [case.N for case in axes["N"]] == list(sweep.STATES)
    assert {case.R for case in axes["D, N=16"]} == {1, 2, 3, 6, 12, 24, 48}


def test_neighbours_that_differ_and_a_choice_that_is_beaten_are_named():
    points = [
        Point("D", FEW, "float16", "cuda", 1.0),
        Point("D", FEW, "float16", "triton", 0.9),
        Point("D", MORE, "float16", "cuda", 1.4),
        Point("D", MORE, "float16", "triton", 1.3),
    ]
    assert sweep.cliffs(points) == []
    slow = [*points[:2], replace(points[2], nanoseconds=1.6), points[3]]
    assert [line.split(": ", 1)[1] for line in sweep.cliffs(slow)] == [
        "30, 96, 40x40, N=1, R=6 and 30, 192, 40x40, N=1, R=6 differ by 1.60",
        "30, 192, 40x40, N=1, R=6: triton beats cuda by 1.23",
    ]


def test_more_states_may_cost_in_proportion_but_no_more_and_fewer_must_not():
    few, many = (Case(30, 96, 40, 40, N, "sweep", 6) for N in (1, 2))

    def found(cost: float) -> int:
        points = [Point("N", few, "float16", "cuda", 1.0)]
        return len(sweep.cliffs([*points, Point("N", many, "float16", "cuda", cost)]))

    assert [found(cost) for cost in (0.6, 0.7, 2.9, 3.1)] == [1, 0, 0, 1]


def test_what_is_left_when_the_time_is_up_is_no_point():
    points = sweep.run(torch.device("cpu"), ["float32"], ["pytorch"], tiny=True, seconds=0)
    assert {point.nanoseconds for point in points} == {None}
    assert {point.reason for point in points} == {"not measured: the time was up"}
    assert sweep.cliffs(points) == []


def test_a_backend_that_fails_is_no_rival():
    points = [
        Point("D", FEW, "float16", "cuda", None, "why"),
        Point("D", FEW, "float16", "triton", 2.0),
    ]
    assert sweep.cliffs(points) == []
    assert "| - | 2.000 |" in sweep.markdown(points, {"device": "x", "torch": "y", "commit": "z"})
