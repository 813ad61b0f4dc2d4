"""`python -m benchmarks model` and `profile` on tiny models: gate, JSON, report, plots."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.measuring import cases, results
from benchmarks.measuring.results import FAILED, OK, WRONG
from benchmarks.models import competitors as models
from benchmarks.render import plot, report

CPU = torch.device("cpu")
TINY = ["model", "--tiny", "--device", "cpu", "--models", "swin_umamba_d"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.json"
    arguments = ["--competitors", "ours", "ours, graph", "release", "--out", str(path)]
    assert command.main([*TINY, *arguments]) == 0
    return path


@pytest.mark.slow
def test_every_mode_and_case_is_timed(measured):
    rows = results.load(measured).rows
    found = {(row.mode, row.case) for row in rows if row.status == OK and row.times is not None}
    tiny = cases.MODEL_GROUPS["tiny"]
    assert found == {(mode, case) for mode in ("training", "inference") for case in tiny}


def test_what_cannot_run_here_is_told(measured):
    missing = results.load(measured).missing
    assert "CUDA device" in missing["ours, graph, swin_umamba_d"]
    assert "SWIN_UMAMBA_PEER_RELEASE" in missing["release, swin_umamba_d"]


def test_report_and_plots_are_made_of_the_file(measured, tmp_path, capsys):
    text = report.markdown(results.load(measured))
    assert "Swin-UMamba†, training step" in text
    assert "| 2, 32x32 |" in text
    assert command.main(["plot", str(measured), "--to", str(tmp_path)]) == 0
    assert (tmp_path / "swin_umamba_d_training_tiny_float32.png").stat().st_size > 0


@pytest.mark.slow
def test_a_slower_run_fails_against_an_earlier_one(measured, tmp_path):
    faster = results.load(measured)
    for row in faster.rows:
        times = row.times
        row.times = dataclasses.replace(times, median=times.median / 100, p80=times.p20 / 100)
    faster.save(tmp_path / "faster.json")
    arguments = ["--competitors", "ours", "--modes", "inference", "--shapes", "1x40x24"]
    against = ["--against", str(tmp_path / "faster.json")]
    assert command.main([*TINY, *arguments, *against]) == 1


@pytest.fixture(scope="module")
def beside_nnunet(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "beside.json"
    pytest.importorskip("dynamic_network_architectures")
    models_of_one_size = ["swin_umamba_d", "swin_umamba_v1", "dynunet", "resenc_m"]
    arguments = ["model", "--tiny", "--device", "cpu", "--models", *models_of_one_size]
    arguments += ["--encoder", "vmamba_v2_tiny_s1l8", "vmamba_tiny", "--shapes", "1x32x32"]
    arguments += ["--competitors", "ours", "release", "--rounds", "1", "--out", str(path)]
    assert command.main(arguments) == 0
    return results.load(path)


def test_networks_are_measured_with_every_encoder_beside_nnunets(beside_nnunet):
    found = {(row.op, row.competitor, row.ours) for row in beside_nnunet.rows}
    assert found == {
        ("swin_umamba_d+vmamba_v2_tiny_s1l8", "ours", True),
        ("swin_umamba_d", "ours", True),
        ("swin_umamba_v1", "ours", True),
        ("dynunet", "eager", False),
        ("resenc_m", "eager", False),
    }
    assert all(row.status == OK for row in beside_nnunet.rows)


def test_a_network_whose_package_is_missing_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "find_spec", lambda package: None)
    path = tmp_path / "out.json"
    arguments = ["model", "--tiny", "--device", "cpu", "--models", "resenc_m"]
    assert command.main([*arguments, "--competitors", "ours", "--out", str(path)]) == 0
    found = results.load(path)
    assert not found.rows
    assert "is not installed" in found.missing["eager, resenc_m"]


def test_the_report_puts_them_side_by_side(beside_nnunet, tmp_path):
    text = report.markdown(beside_nnunet)
    beside = text[text.index("### Beside nnU-Net's network") :]
    assert "| Swin-UMamba† with vmamba_v2_tiny_s1l8 |" in beside
    assert "| nnU-Net's ResEnc-M |" in beside
    own = [line for line in beside.splitlines() if line.startswith("| nnU-Net's network |")]
    assert sum(line.count("(1.00x)") for line in own) == 2  # training and inference
    assert plot.plot(beside_nnunet, tmp_path)


def test_an_encoder_that_no_model_takes_is_refused(capsys):
    arguments = ["model", "--tiny", "--device", "cpu", "--models", "swin_umamba_v1"]
    assert command.main([*arguments, "--encoder", "vmamba_v2_tiny_s1l8"]) == 2
    assert "takes an encoder of vmamba_v2_tiny_s1l8" in capsys.readouterr().err


def _competitor(build):
    (ours,) = (c for c in models.competitors(CPU) if c.name == "ours")
    return dataclasses.replace(ours, build=build)


@pytest.mark.slow
@pytest.mark.parametrize("status", [WRONG, FAILED])
def test_what_is_wrong_is_not_timed(status, monkeypatch, tmp_path):
    def build(model, tiny, state):
        if status == FAILED:
            raise AssertionError("no such model")
        built = models.build_ours(model, tiny, state)
        with torch.no_grad():
            next(built.parameters()).mul_(1.01)
        return built

    entered = [_competitor(build)]
    monkeypatch.setattr(models, "competitors", lambda device: entered)
    path = tmp_path / "out.json"
    assert command.main([*TINY, "--out", str(path)]) == 1
    rows = results.load(path).rows
    assert rows
    assert all(row.status == status and row.times is None for row in rows)


def test_profile_lists_where_time_goes(capsys):
    arguments = ["profile", "--tiny", "--device", "cpu", "--models", "swin_umamba_d"]
    assert command.main([*arguments, "--shapes", "1x32x32", "--competitors", "ours"]) == 0
    assert "swin_umamba::ss2d_scan_backward" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["30x320", "0x3x3", "1x2x3x4", "a"])
def test_shapes_are_read_strictly(text, capsys):
    assert command.main([*TINY, "--shapes", text]) == 2
    assert "expected BxHxW" in capsys.readouterr().err
