"""`python -m benchmarks pretraining`: its arms, their options, what is compared, and the tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pretrain_helpers import coloured_tiles, write_archive
from test_accuracy_verb import _dataset

from benchmarks import __main__ as command
from benchmarks.render import pretraining_report, readme
from benchmarks.training import accuracy, pretraining
from benchmarks.training.pretraining import Settings

V2 = "vmamba_v2_tiny_s1l8"


def _settings(**changes: object) -> Settings:
    fine_tuning = accuracy.Settings([Path("sets/A")], Path("work"), together=True)
    return Settings(Path("images"), fine_tuning, **changes)  # type: ignore[arg-type]


def test_encoders_of_the_second_generation_are_pretrained_once() -> None:
    assert pretraining.fronts(_settings()) == {
        "swin_umamba+vmamba_tiny": ("swin_umamba", "vmamba_tiny"),
        "swin_umamba_d+vmamba_tiny": ("swin_umamba_d", "vmamba_tiny"),
        V2: ("swin_umamba", V2),
    }
    words = pretraining.command(_settings(pretraining=["--lr", "2"]), V2, "cuda:1")
    assert words[1:7] == [
        *("-m", "swin_umamba.cli", "pretrain", "images", f"work/pretraining-{V2}", "--resume"),
    ]
    assert words[words.index("--encoder") + 1] == V2
    assert words[-2:] == ["--lr", "2"]


def test_every_model_starts_from_its_encoder_and_from_scratch() -> None:
    settings = _settings(models=["swin_umamba_d"], arms={"slow": ["--lr", "1"]})
    arms = pretraining.arms(settings)
    assert list(arms) == [
        "swin_umamba_d+vmamba_tiny+pretrained",
        f"swin_umamba_d+{V2}+pretrained",
        "swin_umamba_d+vmamba_tiny+scratch",
        f"swin_umamba_d+{V2}+scratch",
        "dynunet",
        "resenc_m",
        "slow",
    ]
    weights = f"work/pretraining-{V2}/encoder.safetensors"
    assert arms[f"swin_umamba_d+{V2}+pretrained"] == [
        *("--model", "swin_umamba_d", "--set", f"model_options.encoder={V2}"),
        *("--pretrained", weights, "--set", "freeze_iterations=0"),
    ]
    assert "--pretrained" not in arms[f"swin_umamba_d+{V2}+scratch"]
    found = pretraining.pairs(settings)
    assert ("slow", "dynunet") in found
    assert (f"swin_umamba_d+{V2}+pretrained", f"swin_umamba_d+{V2}+scratch") in found
    assert len(found) == 2 * 5 + 2


def test_an_arms_model_wins_over_its_name() -> None:
    """`swin-umamba train` uses the last --model, and options requested by name come last."""
    settings = _settings(models=["swin_umamba_d"], encoders=["vmamba_tiny"])
    narrower = {"swin_umamba_d+vmamba_tiny+scratch": ["--lr", "7"]}
    fine_tuning = accuracy.Settings([Path("sets/A")], Path("work"), options_of=narrower)
    compared = pretraining.compared(
        Settings(settings.images, fine_tuning, settings.models, settings.encoders)
    )
    job = accuracy.Job(Path("sets/A"), "swin_umamba_d+vmamba_tiny+scratch")
    words = accuracy.command(job, compared, "cpu")
    places = [i for i, word in enumerate(words) if word == "--model"]
    assert words[places[-1] + 1] == "swin_umamba_d"
    assert words[-2:] == ["--lr", "7"]


def _run(model: str, seed: int, peak: float, **facts: object) -> dict[str, object]:
    curve = [[60.0, peak / 2], [120.0, peak]]
    case = {"case": "a", "dsc": [peak]}
    return {
        "dataset": "A",
        "model": model,
        "seed": seed,
        "lr": 1e-4,
        "iterations": 20,
        "curve": curve,
        "curve_iterations": [10, 20],
        "memory_mb": 1500,
        "scores": {"cases": [case, {"case": "b", "dsc": [peak / 2]}]},
    } | facts


def test_tables_tell_speed_and_differences() -> None:
    facts = {
        "environment": {"device": "card", "torch": "2", "commit": "c", "date": "d"},
        "settings": {
            **{"minutes": 3, "at_once": 1, "devices": ["cpu"], "together": True},
            **{"datasets": ["A"], "models": ["m+e+pretrained", "m+e+scratch", "dynunet"]},
            "pairs": [["m+e+pretrained", "dynunet"], ["m+e+pretrained", "m+e+scratch"]],
        },
        "runs": [
            *(_run("m+e+pretrained", seed, 0.9) for seed in (0, 1)),
            *(_run("m+e+scratch", seed, peak) for seed, peak in ((0, 0.3), (1, 0.75))),
            *(_run("dynunet", seed, 0.8) for seed in (0, 1)),
        ],
        "pretraining": {
            "images": "tiny",
            "runs": [
                {
                    **{"name": "m+e", "task": "classes", "image_size": [64, 64]},
                    **{"iterations": 100, "seconds": 60.0, "images_per_second": 13000.4},
                    **{"waited": 0.011, "curve": [[30.0, 0.2, 2.0], [60.0, 0.416, 1.5]]},
                }
            ],
        },
    }
    text = pretraining_report.markdown(facts)
    assert "| m+e | classes, 64x64 | 100 | 1.0 | 13,000 | 1.1% | 41.6% | 1.500 |" in text
    assert "Against `dynunet`" in text
    assert "Against `m+e+scratch`" in text
    # 0.8, 0.9 and all of 0.8.
    assert "| model | 0.640 | 0.720 | 0.800 | memory, GB |" in text
    assert "| dynunet | 2.0 min, 20 steps | 2.0 min, 20 steps | 2.0 min, 20 steps | 1.5 |" in text
    scratch = "| m+e+scratch | 2.0 min, 20 steps, 1 of 2 seeds | 2.0 min, 20 steps, 1 of 2 seeds"
    assert f"{scratch} | - (0 of 2 seeds) | 1.5 |" in text
    assert pretraining_report.time_to(facts["runs"][0], 0.5) == (2.0, 20)
    assert pretraining_report.time_to(facts["runs"][0], 0.4) == (1.0, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train-for", "unet=--lr 1"], "--train-for: got 'unet', expected one of A, swin_"),
        ([], "IMAGES: no file or folder"),
    ],
)
def test_bad_arguments_are_told(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "A").mkdir()
    words = ["pretraining", str(tmp_path / "none"), str(tmp_path / "A"), *arguments]
    assert command.main([*words, "--work", str(tmp_path / "work"), "--devices", "cpu"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_pretrains_fine_tunes_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    images = write_archive(tmp_path / "colours", coloured_tiles())
    dataset, out = _dataset(tmp_path / "A", 0), tmp_path / "found.json"
    sizes = {"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1]}
    tiny = [f"--set model_options.{name}='{json.dumps(value)}'" for name, value in sizes.items()]
    words = ["pretraining", str(images), str(dataset), "--models", "swin_umamba_d"]
    words += ["--encoders", "vmamba_tiny", "--baselines", "--devices", "cpu", "--seeds", "1"]
    words += ["--work", str(tmp_path / "work"), "--out", str(out)]
    words += ["--pretrain", f"{' '.join(tiny)} --iterations 2 --image-size 16 16 --batch-size 8"]
    words[-1] += " --set held_out=0.25"
    sizes_of = "--iterations 2 --validate-every 1 --batch-size 2 --patch-size 32 32"
    words += ["--train", f"{' '.join(tiny)} {sizes_of}", "--half-windows"]
    assert command.main(words) == 0, capsys.readouterr().err
    facts = json.loads(out.read_text())
    (made,) = facts["pretraining"]["runs"]
    assert made["iterations"] == 2
    assert made["images_per_second"] > 0
    assert np.isfinite(made["curve"][-1][2])
    assert [run["model"].rsplit("+")[-1] for run in facts["runs"]] == ["pretrained", "scratch"]
    work = tmp_path / "work"
    assert (work / "A-swin_umamba_d+vmamba_tiny+pretrained-0" / "pretrained.json").is_file()
    text = out.with_suffix(".md").read_text()
    assert text == readme.markdown_of(out) + "\n"
    assert "### Pretraining" in text
    assert "### Windows of half the side, against whole ones: A" in text
    assert all(run["half_window_scores"]["cases"] for run in facts["runs"])
    before = (work / "pretraining-swin_umamba_d+vmamba_tiny" / "log.jsonl").stat().st_mtime_ns
    assert command.main(words) == 0  # all is there
    after = (work / "pretraining-swin_umamba_d+vmamba_tiny" / "log.jsonl").stat().st_mtime_ns
    assert before == after
