"""`python -m benchmarks ops` on tiny cases: JSON, report, plots, regressions, exit status."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.measuring import results
from benchmarks.measuring.results import FAILED, MISSING, NOT_RUN, OK, WRONG, Change
from benchmarks.measuring.timing import Times
from benchmarks.ops import competitors
from benchmarks.ops.competitors import Competitor
from benchmarks.render import report
from benchmarks.verbs import ops as ops_verb

REAL = next(c for c in competitors.ours(torch.device("cpu")) if c.name == "pytorch")
TINY = ["ops", "--tiny", "--device", "cpu", "--shapes", "1x8x3x5x4"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "tiny.json"
    assert command.main([*TINY, "--competitors", "pytorch", "--out", str(path)]) == 0
    return path


def fakes():
    """Our pytorch backend under other names: one right, one wrong, one failing, one missing."""

    def garbage(activations, parameters):
        step = REAL.prepare["ss2d"](activations, parameters)
        return dataclasses.replace(step, run=lambda: step.run() * 1.01)

    def failing(activations, parameters):
        raise AssertionError("no such kernel\nsecond line")

    return [
        Competitor("right", True, {"ss2d": REAL.prepare["ss2d"]}),
        Competitor("garbage", False, {"ss2d": garbage}),
        Competitor("failing", False, {"ss2d": failing}),
        Competitor("absent", False, {}, "not here; to get it: build it"),
    ]


@pytest.fixture
def with_fakes(monkeypatch):
    monkeypatch.setattr(competitors, "ours", lambda device: fakes()[:1])
    monkeypatch.setattr(ops_verb.peers, "peers", lambda device: fakes()[1:])


def test_json_holds_what_is_needed_to_judge_it(measured):
    data = json.loads(measured.read_text())
    assert data["schema"] == results.SCHEMA
    for fact in ("device", "driver", "commit", "torch", "date", "versions", "swin_umamba_ops"):
        assert fact in data["environment"]
    assert data["ceilings"]["copy_bytes_per_second"] > 0
    assert data["ceilings"]["exp2_per_second"] > 0
    keys = {(row["op"], row["mode"]) for row in data["rows"]}
    assert keys == {
        ("ss2d", "forward"),
        ("ss2d", "forward_backward"),
        ("ss2d_scan", "forward"),
        ("ss2d_scan", "backward"),
        ("selective_scan", "forward"),
        ("selective_scan", "forward_backward"),
    }
    for row in data["rows"]:
        assert row["status"] == OK
        times = row["times"]
        assert 0 < times["least"] <= times["p20"] <= times["median"] <= times["p80"]
        assert times["count"] >= 3
        assert row["floor_ms"] > 0


def test_loading_gives_back_what_was_saved(measured, tmp_path):
    loaded = results.load(measured)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == measured.read_text()


def test_other_files_are_refused(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text("{}")
    assert command.main(["report", str(path)]) == 2
    assert "no benchmark file" in capsys.readouterr().err


@pytest.mark.usefixtures("with_fakes")
def test_what_is_wrong_or_fails_is_told_and_not_timed(tmp_path, capsys):
    path = tmp_path / "fakes.json"
    assert command.main([*TINY, "--ops", "ss2d", "--out", str(path)]) == 0
    rows = results.load(path).rows
    status = {row.competitor: row.status for row in rows}
    assert status == {"right": OK, "garbage": WRONG, "failing": FAILED}
    for row in rows:
        assert (row.times is None) == (row.status != OK)
    assert {r.reason for r in rows if r.competitor == "failing"} == {
        "AssertionError: no such kernel"
    }
    printed = capsys.readouterr().out
    assert "garbage, ss2d, float32: wrong (y is" in printed
    assert "absent: not here; to get it: build it" in printed
    assert MISSING not in status.values()


def test_our_own_failure_fails_the_command(monkeypatch):
    broken = [dataclasses.replace(fakes()[1], ours=True)]
    monkeypatch.setattr(competitors, "ours", lambda device: broken)
    monkeypatch.setattr(ops_verb.peers, "peers", lambda device: [])
    assert command.main([*TINY, "--ops", "ss2d"]) == 1


@pytest.mark.usefixtures("with_fakes")
def test_a_spent_budget_leaves_the_rest_out(tmp_path):
    path = tmp_path / "budget.json"
    assert command.main([*TINY, "--budget-seconds", "0", "--out", str(path)]) == 0
    assert {row.status for row in results.load(path).rows} == {NOT_RUN}


def slowed(path: Path, factor: float, to: Path) -> Path:
    data = results.load(path)
    for row in data.rows:
        t = row.times
        assert t is not None
        row.times = Times(*(v * factor for v in (t.median, t.p20, t.p80, t.least)), t.count)
    data.save(to)
    return to


@pytest.mark.parametrize(("factor", "status"), [(1e-3, 1), (1e3, 0)])
def test_against_fails_where_ours_got_slower(measured, tmp_path, capsys, factor, status):
    earlier = slowed(measured, factor, tmp_path / "earlier.json")
    arguments = [*TINY, "--ops", "ss2d", "--competitors", "pytorch", "--against", str(earlier)]
    assert command.main(arguments) == status
    assert ("| slower |" in capsys.readouterr().out) == bool(status)


def test_a_change_within_the_spread_is_no_regression():
    old = Times(1.0, 0.9, 1.5, 0.8, 9)
    assert not Change(("", "", "", "", ""), old, Times(1.4, 1.3, 1.6, 1.2, 9)).is_slower(0.1)
    assert Change(("", "", "", "", ""), old, Times(1.7, 1.6, 1.8, 1.5, 9)).is_slower(0.1)


def test_report_goes_between_the_markers(measured, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        assert command.main(["report", str(measured), "--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| 1, 8, 3x5, N=4 |" in text
    assert "old" not in text


def test_report_needs_its_markers(measured, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("nothing\n")
    assert command.main(["report", str(measured), "--into", str(page)]) == 2
    assert "benchmarks: begin" in capsys.readouterr().err


def test_plots_are_made_from_the_json(measured, tmp_path):
    pytest.importorskip("matplotlib")
    assert command.main(["plot", str(measured), "--to", str(tmp_path), "--prefix", "tiny_"]) == 0
    made = sorted(path.name for path in tmp_path.glob("*.png"))
    assert "tiny_ss2d_forward_custom_float32.png" in made
    assert len(made) == 6


@pytest.mark.slow
def test_measuring_imports_no_matplotlib():
    code = "import sys, benchmarks.__main__; assert 'matplotlib' not in sys.modules"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "3x4"], "expected BxDxHxW"),
        (["--competitors", "nobody"], "--competitors has nobody"),
    ],
)
def test_bad_arguments_are_told(arguments, message, capsys):
    assert command.main(["ops", "--tiny", "--device", "cpu", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.gpu
def test_memory_beyond_inputs_outputs_and_gradients(tmp_path):
    path = tmp_path / "gpu.json"
    shape = ["--shapes", "8x192x40x40", "--cell-seconds", "0.01", "--graph"]
    assert command.main(["ops", *shape, "--dtypes", "float16", "--out", str(path)]) == 0
    rows = [row for row in results.load(path).rows if row.status == OK]
    assert rows
    # Permuted, repeated and flipped copies would be five float32 (B, 4, D, L) tensors or more. The
    # CUDA kernels make none: their states, projections and sums are about two (2.06 on an H100).
    most = 2.25 * 8 * 4 * 192 * 1600 * 4
    for row in rows:
        assert row.extra_bytes is not None
        if row.competitor == "cuda" and row.op == "ss2d":
            assert row.extra_bytes < most
    assert torch.cuda.is_available()
