"""`python -m benchmarks accuracy`: order of trainings, their options, scores, tables."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks import __main__ as command
from benchmarks.render import accuracy_report, readme
from benchmarks.training import accuracy, accuracy_worker
from benchmarks.training.accuracy import Job, Settings

A, B = Path("sets/A"), Path("sets/B")
TRANSFER = ("--transfer", "nowhere:nowhere:dynunet")


def test_every_model_on_every_dataset_then_more_seeds_then_transfers():
    models = ["swin_umamba_d", "dynunet"]
    settings = Settings([A, B], Path("work"), models, [2, 1], [(A, B, models[0])])
    assert accuracy.jobs(settings) == [
        Job(A, "swin_umamba_d"),
        Job(A, "dynunet"),
        Job(B, "swin_umamba_d"),
        Job(B, "dynunet"),
        Job(A, "swin_umamba_d", 1),
        Job(A, "dynunet", 1),
        Job(B, "swin_umamba_d", 0, A),
    ]


def test_the_models_of_a_dataset_and_seed_share_a_device():
    models = ["swin_umamba", "dynunet"]
    settings = Settings([A, B], Path("work"), models, [2, 1], together=True)
    assert accuracy.groups(settings) == [
        [Job(A, "swin_umamba"), Job(A, "dynunet")],
        [Job(B, "swin_umamba"), Job(B, "dynunet")],
        [Job(A, "swin_umamba", 1), Job(A, "dynunet", 1)],
    ]
    alone = replace(settings, together=False)
    assert accuracy.groups(alone)[0] == [Job(A, "swin_umamba")]


def test_a_device_takes_a_group_when_it_is_through_with_the_one_before(monkeypatch, tmp_path):
    events = []
    all_there = threading.Barrier(2, timeout=20)

    def train(self, job, device):
        all_there.wait()
        events.append(("start", job.name, device))
        all_there.wait()
        events.append(("end", job.name, device))

    monkeypatch.setattr(accuracy._Runner, "_train", train)
    models = ["swin_umamba", "dynunet"]
    settings = Settings([A, B], tmp_path, models, devices=["cpu"], together=True)
    runner = accuracy._Runner(settings, accuracy.groups(settings), time.perf_counter(), lambda: 0)
    runner.run()
    first = {name for what, name, _ in events[:4] if what == "end"}
    assert first == {"A-swin_umamba-0", "A-dynunet-0"}
    assert [what for what, _, _ in events] == ["start", "start", "end", "end"] * 2


def test_nothing_starts_too_late(monkeypatch, tmp_path):
    monkeypatch.setattr(accuracy._Runner, "_train", lambda *given: pytest.fail("it started"))
    settings = Settings([A], tmp_path, start_until=10.0)
    missing = accuracy.groups(settings)
    runner = accuracy._Runner(settings, missing, time.perf_counter() - 11, lambda: 0)
    runner.run()
    assert runner.waiting == missing


def test_a_transfer_starts_from_the_encoder_of_its_source():
    settings = Settings([A, B], Path("work"), options_of={"B": ["--batch-size", "4"]})
    words = accuracy.command(Job(B, "swin_umamba_d", 0, A), settings, "cuda:1")
    assert words[words.index("--pretrained") + 1] == "work/A-swin_umamba_d-0/encoder.safetensors"
    assert words[words.index("--batch-size") + 1] == "4"
    assert words[words.index("--device") + 1] == "cuda:1"


def test_options_of_a_dataset_a_model_or_both_the_narrowest_last():
    options = {"B:dynunet": ["--lr", "3"], "dynunet": ["--lr", "2"], "B": ["--lr", "1"]}
    settings = Settings([A, B], Path("work"), options_of=options)

    def rates(job):
        words = accuracy.command(job, settings, "cpu")
        return [words[i + 1] for i, word in enumerate(words) if word == "--lr"]

    assert rates(Job(B, "dynunet")) == ["1", "2", "3"]
    assert rates(Job(A, "dynunet")) == ["2"]
    assert rates(Job(A, "swin_umamba")) == []


def test_one_step_of_every_model_is_made_outside_of_the_minutes(monkeypatch, tmp_path):
    made = []

    def run(words, env, **rest):
        made.append((words, env["CUDA_VISIBLE_DEVICES"]))
        if "swin_umamba_d" in words:
            raise accuracy.subprocess.CalledProcessError(1, words)

    monkeypatch.setattr(accuracy.subprocess, "run", run)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    failed = accuracy.warm_up(Settings([A, B], tmp_path / "work"), "cuda:1")
    assert failed == ["swin_umamba_d"]
    assert [words[words.index("--model") + 1] for words, _ in made] == list(accuracy.MODELS)
    for words, sees in made:
        assert words[1:5] == ["-m", "swin_umamba.cli", "train", str(A)]
        assert words[-2:] == ["--iterations", "1"]
        assert not words[5].startswith(str(tmp_path / "work"))
        assert sees == "1"
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cpu", None, ("cpu", {})),
        ("cuda:1", None, ("cuda:0", {"CUDA_VISIBLE_DEVICES": "1"})),
        ("cuda", "4,6", ("cuda:0", {"CUDA_VISIBLE_DEVICES": "4"})),
        ("cuda:1", "4,6", ("cuda:0", {"CUDA_VISIBLE_DEVICES": "6"})),
    ],
)
def test_a_training_sees_its_own_gpu_alone(device, visible, expected):
    assert accuracy.alone(device, visible) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "which is no folder"),
        (["nowhere", "--transfer", "A:B"], "expected A:B:MODEL"),
        (["nowhere", "--transfer", "A:B:dynunet"], "expected a name of nowhere"),
        (["nowhere", "--transfer", "nowhere:nowhere:unet"], "which is none of the trainings"),
        (["nowhere", "--train-for", "A=--lr 1"], "expected a name of nowhere"),
        (["nowhere", "--train-for", "nowhere:unet=--lr 1"], "nowhere:dynunet"),
        (["nowhere", "--seeds", "1", "2"], "expected one or 1"),
        (["nowhere", "--together", *TRANSFER], "--together has no place for --transfer"),
    ],
)
def test_bad_arguments_are_told(arguments, message, tmp_path, capsys):
    name, *rest = arguments
    words = ["accuracy", str(tmp_path / name), *rest, "--work", str(tmp_path / "work")]
    assert command.main(words) == 2
    assert message in capsys.readouterr().err


def _dataset(folder: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(5):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 8 + i : 24] = 1
        image = (60 * mask + rng.normal(40, 5, mask.shape)).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(folder / "images" / f"{i}.tif", image)
        tifffile.imwrite(folder / "masks" / f"{i}.tif", mask)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_trains_scores_transfers_and_tells_what_failed(tmp_path, capsys):
    first, second = _dataset(tmp_path / "A", 0), _dataset(tmp_path / "B", 1)
    tiny = {"dims": [8, 16], "depths": [1, 1], "decoder_depths": [1], "d_state": 2}
    options = [f"--set model_options.{name}='{json.dumps(value)}'" for name, value in tiny.items()]
    sizes = "--iterations 2 --validate-every 1 --batch-size 2 --patch-size 32 32"
    out = tmp_path / "accuracy.json"
    words = ["accuracy", str(first), str(second), "--models", "swin_umamba_d", "no_model"]
    words += [
        "--transfer",
        "A:B:swin_umamba_d",
        "--devices",
        "cpu",
        "--work",
        str(tmp_path / "work"),
    ]
    words += ["--train", f"{sizes} {' '.join(options)}", "--out", str(out)]
    assert command.main(words) == 1
    facts = json.loads(out.read_text())
    by_model = {(r["dataset"], r["model"]): r for r in facts["runs"]}
    assert "no_model" in by_model["A", "no_model"]["reason"]
    moved = by_model["B", "swin_umamba_d, encoder from A"]
    for made in (by_model["A", "swin_umamba_d"], by_model["B", "swin_umamba_d"], moved):
        assert made["iterations"] == 2
        assert 0 < made["first_step"] < made["stepping"] < made["seconds"]
        assert made["model_options"]["dims"] == [8, 16]
        assert len(made["curve"]) == 2
        assert 0 <= made["scores"]["means"]["dsc"]["foreground"]["mean"] <= 1
    text = out.with_suffix(".md").read_text()
    assert text == readme.markdown_of(out) + "\n", "as `python -m benchmarks readme` writes it"
    assert "swin_umamba_d, encoder from A" in text
    assert "lr 0.0001, eps 1e-05, dims [8, 16]" in text
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "swin_umamba_d" in capsys.readouterr().out

    # A training that ended before its first validation has no curve.
    moved["curve"] = []
    out.write_text(json.dumps({**facts, "note": "Stopped early."}))
    assert command.main(["report", str(out)]) == 0
    assert capsys.readouterr().out.strip() == f"{text.strip()}\n\nStopped early."
    assert command.main(["plot", str(out), "--to", str(tmp_path), "--prefix", "again_"]) == 0
    assert (tmp_path / f"again_{out.stem}.png").stat().st_size > 1000


def test_a_cut_off_command_goes_on_in_another(tmp_path, monkeypatch, capsys):
    data = _dataset(tmp_path / "A", 0)
    out, work = tmp_path / "accuracy.json", tmp_path / "work"
    words = ["accuracy", str(data), "--models", "swin_umamba_d", "dynunet", "--devices", "cpu"]
    words += ["--together", "--seeds", "2", "--work", str(work), "--out", str(out)]
    words += ["--train", "--iterations 1"]
    trained = []

    def worker(self, job, device):
        trained.append(job.name)
        run = work / job.name
        run.mkdir()
        record = {"step": 0.5, "seconds": 1.0, "waited": 0.1, "dsc": 0.5}
        (run / "log.jsonl").write_text(json.dumps(record))
        names = ("batch_size", "patch_size", "lr", "eps")
        (run / "config.json").write_text(
            json.dumps(dict.fromkeys(names, 1) | {"model_options": {}})
        )
        case = {"case": "a", "dsc": [0.1 * len(trained)]}
        (run / accuracy.DONE).write_text(json.dumps({"cases": [case]}))

    monkeypatch.setattr(accuracy._Runner, "_train", worker)
    monkeypatch.setattr(accuracy._Runner, "_took", lambda self: 200.0 if trained else 0.0)
    assert command.main([*words, "--start-until", "100"]) == 1
    first, second = ({f"A-{m}-{seed}" for m in ("swin_umamba_d", "dynunet")} for seed in (0, 1))
    assert set(trained) == first
    before = json.loads(out.read_text())
    assert ["scores" in r for r in before["runs"]] == [True, True, False, False]
    assert before["runs"][2]["reason"] == "not finished"

    # On another machine, with only the file.
    shutil.rmtree(work)
    earlier = tmp_path / "earlier.json"
    out.rename(earlier)
    assert command.main([*words, "--earlier", str(earlier)]) == 0
    assert set(trained[2:]) == second
    found = json.loads(out.read_text())
    assert found["runs"][:2] == before["runs"][:2]
    assert found["earlier_environment"] == before["environment"]
    assert "2 at once on each of 1: all models of a seed of a dataset" in capsys.readouterr().out

    # If half of a group is missing, the whole group is repeated together.
    trained.clear()
    (work / "A-dynunet-1" / accuracy.DONE).unlink()
    monkeypatch.setattr(accuracy._Runner, "_train", lambda self, job, _: trained.append(job.name))
    assert command.main([*words, "--earlier", str(earlier)]) == 1
    assert set(trained) == second

    before["environment"]["commit"] = "another"
    earlier.write_text(json.dumps(before))
    assert command.main([*words, "--minutes", "1", "--earlier", str(earlier)]) == 2
    assert "--earlier was made otherwise: minutes, commit" in capsys.readouterr().err


def test_a_training_that_was_cut_off_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "command", lambda job, settings, device: ["true"])
    settings = Settings([A], tmp_path, ["dynunet"])
    (left,) = accuracy.jobs(settings)
    (tmp_path / left.name).mkdir()
    runner = accuracy._Runner(settings, [[left]], time.perf_counter(), lambda: 0)
    runner.run()
    assert not (tmp_path / left.name).exists()


def test_a_training_that_fails_is_not_scored(tmp_path, monkeypatch):
    def app(words, standalone_mode):
        assert words[0] == "train", "nothing is asked of a run that failed"
        return 3

    monkeypatch.setattr(accuracy_worker, "app", app)
    with pytest.raises(SystemExit, match="3"):
        accuracy_worker.main(tmp_path, tmp_path / "run", ["--device", "cpu"])


def test_intervals_and_differences_are_over_cases():
    one = {
        "scores": {"cases": [{"case": c, "dsc": [v, None]} for c, v in (("a", 0.5), ("b", 0.7))]}
    }
    two = {"scores": {"cases": [{"case": c, "dsc": [v, 0.9]} for c, v in (("a", 0.3), ("b", 0.5))]}}
    assert accuracy_report.case_values(one["scores"], "dsc") == {"a": 0.5, "b": 0.7}
    assert accuracy_report.case_values(two["scores"], "dsc") == pytest.approx({"a": 0.6, "b": 0.7})
    mean, low, high = accuracy_report.interval([0.5, 0.7])
    assert (mean, low, high) == pytest.approx((0.6, 0.5, 0.7))
    assert accuracy_report.difference([one], [two], "dsc") == "-0.050 (-0.100 to +0.000)"
    # Half as much where one of two runs is the same.
    assert accuracy_report.difference([one, one], [one, two], "dsc") == "-0.025 (-0.050 to +0.000)"


def test_models_without_a_common_case_have_no_difference():
    one, two = ({"scores": {"cases": [{"case": name, "dsc": [0.5]}]}} for name in "ab")
    assert accuracy_report.difference([one], [two], "dsc") == "-"


def test_differences_are_of_the_first_seed_and_of_all_that_both_models_have():
    def run(model, seed, value):
        scores = {"cases": [{"case": "a", "dsc": [value]}, {"case": "b", "dsc": [value]}]}
        made = {"dataset": "A", "model": model, "seed": seed, "lr": 1e-3, "iterations": 9}
        return made | {"scores": scores}

    runs = [run("ours", 0, 0.5), run("dynunet", 0, 0.4), run("ours", 1, 0.7)]
    runs += [run("dynunet", 1, 0.5), run("ours", 2, 0.1)]
    settings = {"datasets": ["A"], "minutes": 1, "at_once": 1, "devices": ["cpu"]}
    where = {"device": "cpu", "torch": "2", "commit": "c", "date": "d"}
    text = accuracy_report.markdown({"environment": where, "settings": settings, "runs": runs})
    assert "| ours | 0 | +0.100 (+0.100 to +0.100) |" in text
    assert "| ours | 0, 1 | +0.150 (+0.150 to +0.150) |" in text
    assert "0, 1, 2" not in text
