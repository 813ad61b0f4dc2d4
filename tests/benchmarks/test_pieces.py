"""Cases, floors, timing and the report's arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.measuring import cases, timing
from benchmarks.measuring.cases import Case
from benchmarks.measuring.results import OK, Results, Row
from benchmarks.measuring.timing import Times
from benchmarks.ops import floors
from benchmarks.render import report

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("30x192x80x80", Case(30, 192, 80, 80, 16, "custom")),
        ("1x8x3x5x64", Case(1, 8, 3, 5, 64, "custom")),
    ],
)
def test_shapes_are_parsed(text, case):
    assert cases.parse_case(text) == case


@pytest.mark.parametrize("text", ["", "1x2x3", "1x2x3x0", "1x2x3x4x5x6", "axbxcxd", "1x2x3x4x"])
def test_other_shapes_are_refused(text):
    with pytest.raises(ValueError, match="expected BxDxHxW"):
        cases.parse_case(text)


def test_ranks_are_the_models():
    assert [Case(1, D, 1, 1).R for D in (192, 384, 768, 1536)] == [6, 12, 24, 48]


def test_parameters_are_as_the_layer_initialises_them():
    parameters = cases.ss2d_parameters(Case(1, 64, 2, 2), CPU)
    dt = torch.nn.functional.softplus(parameters["dt_projs_bias"])
    assert float(dt.min()) > 0.999e-3
    assert float(dt.max()) < 0.1001
    torch.testing.assert_close(parameters["A_logs"].exp()[5], torch.arange(1.0, 17))


def test_the_floor_of_the_published_case():
    """design: 0.57 ms of exponentials at 30, 192, 80x80 with 4.16e12 of them a second."""
    ceilings = floors.Ceilings(4.16e12, 3.0e12)
    case = Case(30, 192, 80, 80)
    assert math.isclose(floors.floor_ms("ss2d", "forward", case, 2, ceilings), 0.567, rel_tol=1e-2)
    both = floors.floor_ms("ss2d", "forward_backward", case, 2, ceilings)
    assert math.isclose(both, 2 * 0.567, rel_tol=1e-2)


def test_traffic_is_the_floor_where_there_are_few_states():
    ceilings = floors.Ceilings(4.16e12, 3.0e12)
    case = Case(30, 192, 80, 80, 1)
    x, y = 30 * 192 * 6400 * 2, 30 * 192 * 6400 * 4
    expected = (x + y) / 3.0e12 * 1e3
    assert math.isclose(floors.floor_ms("ss2d", "forward", case, 2, ceilings), expected)


def test_percentiles():
    times = Times.of([5.0, 1.0, 4.0, 2.0, 3.0, 100.0])
    assert times == Times(median=3.5, p20=2.0, p80=5.0, least=1.0, count=6)


def test_inputs_rotate_past_the_cache():
    cache = timing.cache_bytes(CPU)
    assert timing.input_sets(4 * cache, CPU) == 2
    assert timing.input_sets(cache // 2, CPU) == 4
    assert timing.input_sets(1, CPU) == 16


def test_competitors_take_turns_over_all_inputs():
    calls: list[tuple[str, int]] = []

    def call(name, i):
        return lambda: calls.append((name, i))

    entered = {name: [call(name, i) for i in range(3)] for name in ("a", "b")}
    times = timing.interleaved(entered, CPU, seconds=1.0, rounds=2, most=6)
    assert {name: t.count for name, t in times.items()} == {"a": 12, "b": 12}
    order = [name for i, (name, _) in enumerate(calls) if i == 0 or calls[i - 1][0] != name]
    assert order == ["a", "b", "a", "b", "a", "b"]  # estimates, then two rounds
    assert {i for _, i in calls} == {0, 1, 2}


def row(competitor: str, ours: bool, mode: str, median: float, extra: int) -> Row:
    times = Times(median, median, median, median, 9)
    case = Case(30, 192, 80, 80)
    return Row("ss2d", mode, case, "float16", competitor, ours, OK, None, times, extra, 0.5)


def test_ratios_are_over_our_fastest():
    rows = []
    for name, ours, f, fb, extra in (
        ("slow", True, 2.0, 9.0, 900),
        ("cuda", True, 1.0, 4.0, 100),
        ("release", False, 11.0, 40.0, 800),
    ):
        rows += [
            row(name, ours, "forward", f, extra),
            row(name, ours, "forward_backward", fb, extra),
        ]
    environment = {"device": "D", "torch": "2", "commit": "c", "date": "d"}
    ceilings = {"exp2_per_second": None, "copy_bytes_per_second": 1e9}
    text = report.markdown(Results(environment, ceilings, {}, {}, rows))
    line = next(line for line in text.splitlines() if line.startswith("| 30, 192, 80x80"))
    assert "11.0x / 10.0x / 1/8.0" in line
    assert line.endswith("| 50 % / 12 % |")
