"""`python -m benchmarks cpu` on tiny cases: rows of every part, goals, plots, peak memory."""

from __future__ import annotations

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.measuring import host_memory, results
from benchmarks.measuring.cases import Case
from benchmarks.measuring.results import OK, Results, Row
from benchmarks.measuring.timing import Times
from benchmarks.models import cpu as cpu_run
from benchmarks.render import plot
from swin_umamba_ops import backends

SPEEDS = {"1 thread": 4.0, "2 threads": 2.5}
REASON = backends.why_unusable("cpu")
needs_cpu = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "cpu.json"
    assert command.main(["cpu", "--tiny", "--out", str(path)]) == 0
    return results.load(path)


@needs_cpu
def test_every_part_leaves_rows(measured):
    seen = {(row.op, row.mode, row.competitor) for row in measured.rows}
    for mode in ("forward", "forward_backward"):
        assert {("ss2d", mode, "cpu"), ("ss2d", mode, cpu_run.EXP)} <= seen
        assert measured.settings["ratios_to_exp"][mode] > 0
    assert ("ss2d_scan", "backward", "1 thread") in seen
    for backend in ("cpu", "pytorch"):
        assert ("swin_umamba_d", "training", backend) in seen
    assert all(row.times.median > 0 for row in measured.rows)


@needs_cpu
def test_the_goals_count(measured):
    measured.settings["ratios_to_exp"] = {"forward": 2.9, "forward_backward": 6.1}
    assert cpu_run.missed_goals(measured) == ["forward_backward"]


def test_plots_of_threads_and_sizes(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")

    def row(op, side, group, competitor, milliseconds, extra_bytes=None):
        case = Case(1, 16, side, side, group=group)
        times = Times(*[milliseconds] * 4, 1)
        return Row(op, "forward", case, "float32", competitor, True, OK, None, times, extra_bytes)

    rows = [row("ss2d", side, "sizes", "cpu", side**2, side) for side in (8, 16, 32)]
    rows += [row("ss2d_scan", 8, "threads", name, ms) for name, ms in SPEEDS.items()]
    written = plot.plot(Results({"device": "some"}, {}, {}, {}, rows), tmp_path)
    assert {path.name for path in written} == {
        "ss2d_forward_sizes_float32.png",
        "ss2d_scan_forward_threads_float32.png",
    }


def test_exponentials_are_as_many_as_asked_for():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        calls = []
        exp = torch.exp
        counted = pytest.MonkeyPatch()
        counted.setattr(torch, "exp", lambda v, out: calls.append(v.numel()) or exp(v, out=out))
        cpu_run.exponentials(5 << 15)()
        counted.undo()
    finally:
        torch.set_num_threads(before)
    assert sum(calls) == 5 << 15


def test_peak_memory_sees_what_a_call_frees_again():
    reason = host_memory.why_unknown()
    if reason is not None:
        pytest.skip(reason)

    def call() -> int:
        torch.ones(16 << 20).sum()  # 64 MiB, gone when it returns
        return 7

    call()
    peak, result = host_memory.peak_bytes(call)
    assert result == 7
    assert 60 << 20 < peak < 100 << 20
    assert host_memory.peak_bytes(lambda: None)[0] < 8 << 20
