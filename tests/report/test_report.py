"""The page of a run: its content, that it is self-contained, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

import swin_umamba
from swin_umamba.cli import app
from swin_umamba.common.environment import commit, describe
from swin_umamba.data import open_dataset
from swin_umamba.evaluate import CaseScores, Scores, evaluate_cases, evaluate_folder
from swin_umamba.evaluate.held_out import predict_validation
from swin_umamba.report import write_report
from swin_umamba.report.cases import ranked
from swin_umamba.report.run import load_run
from swin_umamba.train import TrainConfig
from swin_umamba.weights import read_config
from swin_umamba.weights.saved import save_tensors

MODEL = '{"model_options": {"dims": [4, 8], "depths": [1, 1], "d_state": 1}}'
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CASES = 8


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset of squares of two classes, one case empty, and a short run that tests on all."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "set" / kind).mkdir(parents=True)
    for i in range(CASES):
        mask = np.zeros((40, 52), np.uint8)
        if i:
            mask[4 + i : 20 + i, 10:34], mask[26:36, 40:50] = 1, 2
        image = (40 + 60 * mask + rng.normal(0, 8, mask.shape)).clip(0, 255).astype(np.uint8)
        # Names that would break a page if they were not escaped.
        name = "a<b>&'c.png" if i == 1 else f"case{i}.png"
        Image.fromarray(image).save(root / "set" / "images" / name)
        Image.fromarray(mask).save(root / "set" / "masks" / name)
    names = [case.name for case in open_dataset(root / "set").cases]
    (root / "model.json").write_text(MODEL)
    (root / "splits.json").write_text(json.dumps([{"train": names, "val": names}]))
    result = _invoke(
        *("train", root / "set", root / "run", "--config", root / "model.json"),
        *("--splits", root / "splits.json", "--iterations", 6, "--validate-every", 3),
        *("--batch-size", 2, "--patch-size", 32, 32, "--lr", 0.01, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    return root / "set", root / "run"


@pytest.fixture(scope="module")
def page(made: tuple[Path, Path]) -> Path:
    result = _invoke("report", made[1])
    assert result.exit_code == 0, result.output
    assert str(made[1] / "report.html") in result.output.replace("\n", "")
    return made[1] / "report.html"


class _Addresses(HTMLParser):
    """Everything that a browser would fetch, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = re.findall(r"url\(([^)]*)\)", text)
        self.tags: set[str] = set()
        self.alts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.found += [values[n] or "" for n in ("src", "srcset", "href") if n in values]
        if tag == "img":
            self.alts.append(values.get("alt"))


def test_the_page_holds_all_it_shows(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = _Addresses(text)
    assert len(addresses.found) > 20
    for address in addresses.found:
        assert address.startswith("data:")
        if address.startswith("data:image/png;base64,"):
            Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))).load()
    assert not addresses.tags & {"script", "iframe", "object", "embed", "b>"}
    assert all(addresses.alts)
    assert "@import" not in text


def test_the_page_tells_scores_config_data_and_environment(
    page: Path, made: tuple[Path, Path]
) -> None:
    dataset, run = made
    text = page.read_text(encoding="utf-8")
    scores = evaluate_folder(run / "validation", dataset)
    for metric in ("dsc", "nsd", "dsc_merged"):
        for name, mean, _ in scores.means(metric):
            assert name in text
            assert f"<td>{mean:.3f}</td>" in text
    for case in scores.cases:
        assert unescape(text).count(case.case) >= 2
    assert "a<b>" not in text
    assert "<td>0.01</td>" in text  # lr
    assert torch.__version__ in text
    assert json.loads((run / "environment.json").read_text())["commit"] in text
    assert ">Environment</h3>" in text
    assert "Over the iterations" in text
    assert text.count(">Right and wrong</figcaption>") == 6
    assert text.index(">Worst</h3>") < text.index(">Best</h3>")
    assert "The run was trained on these cases" in text


def test_predictions_are_made_once_for_the_same_weights(
    made: tuple[Path, Path], page: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made[1], run)
    masks = {path: path.stat().st_mtime_ns for path in (run / "validation").glob("*.png")}
    assert len(masks) == CASES
    write_report(run, tmp_path / "again.html", device="cpu")
    assert {path: path.stat().st_mtime_ns for path in masks} == masks
    best = run / "best.safetensors"
    halved = {name: tensor / 2 for name, tensor in load_file(best).items()}
    save_tensors(halved, best, {}, read_config(best))
    write_report(run, tmp_path / "again.html", device="cpu")
    assert all(path.stat().st_mtime_ns > before for path, before in masks.items())


def test_files_of_other_systems_are_no_pictures(
    made: tuple[Path, Path], page: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made[1], run)
    before = load_run(run).overlays
    (case, *_) = (run / "overlays").iterdir()
    for litter in (run / "overlays" / "._x", run / "overlays" / ".DS_Store", case / "._3.png"):
        litter.write_bytes(b"Mac OS X")
    (run / "validation" / f"._{case.name}.png").write_bytes(b"Mac OS X")
    assert load_run(run).overlays == before
    write_report(run, tmp_path / "page.html", device="cpu")


def test_postprocessing_counts_and_leaves_the_masks_as_they_are(
    made: tuple[Path, Path], page: Path, tmp_path: Path
) -> None:
    """They are the same files as a cross-validation's, which looks for postprocessing on them."""
    dataset, run = made[0], tmp_path / "run"
    shutil.copytree(made[1], run)
    masks = {path: path.stat().st_mtime_ns for path in (run / "validation").glob("*.png")}
    for number, path in enumerate(masks):
        mask = np.zeros((40, 52), np.uint8)
        mask[4:20, 10:34], mask[30 : 31 + number, 0] = 1, 1
        Image.fromarray(mask).save(path)
        os.utime(path, ns=(masks[path], masks[path]))
    (run / "postprocessing.json").write_text('{"keep_largest": [1]}')
    text = write_report(run, device="cpu").read_text()
    assert {path: path.stat().st_mtime_ns for path in masks} == masks
    cases = open_dataset(dataset)
    files = {path.stem: path for path in masks}
    cleaned, raw = (evaluate_cases(files, cases, keep_largest=kept) for kept in ((1,), ()))
    assert f"<td>{cleaned.means('dsc')[0][1]:.3f}</td>" in text
    assert f"<td>{raw.means('dsc')[0][1]:.3f}</td>" not in text
    assert "Of label_1, only the largest component counts." in text
    assert predict_validation(run, cases.cases, device="cpu").keys() == files.keys()
    assert {path: path.stat().st_mtime_ns for path in masks} == masks


def test_given_predictions_are_taken_and_nothing_is_written_to_the_run(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, run = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(made[0], dataset)
    run.mkdir()
    for name in ("config.json", "plan.json", "splits.json", "log.jsonl"):
        shutil.copyfile(made[1] / name, run / name)
    before = sorted(run.iterdir())
    result = _invoke(
        *("report", run, "--out", tmp_path / "page.html"),
        *("--dataset", dataset, "--predictions", dataset / "masks"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(run.iterdir()) == before
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    # DSC, NSD, cases, empty in both.
    assert "<td>1.000</td><td>1.000</td><td>7</td><td>1</td>" in text
    assert "Environment of this report" in text
    assert "Over the iterations" not in text


def test_cases_are_ranked_without_empty_ones() -> None:
    nan = float("nan")
    values = {"empty": (nan, nan), "half": (0.5, nan), "bad": (0.1, 0.2), "good": (0.9, 0.8)}
    scores = Scores(
        ("x", "y"), 2, tuple(CaseScores(name, v, (nan, nan)) for name, v in values.items())
    )
    assert [case.case for case in ranked(scores)] == ["bad", "half", "good"]


def test_a_run_without_a_dataset_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(TrainConfig().to_json())
    records: list[dict[str, Any]] = [
        {"iteration": 1, "loss": 0.5, "lr": 1e-4, "seconds": 1.0, "step": 1.0, "waited": 0.25},
        {"iteration": 2, "loss": None, "lr": 1e-4, "skipped": "the loss", "seconds": 2.0},
    ]
    lines = [json.dumps(record) for record in records]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"iteration": 3, "lo']))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "2 steps, 1 skipped, 25.0% of it waiting for data" in text
    assert "nothing to score case by case" in text


def _without_weights(run: Path) -> None:
    for name in ("best.safetensors", "model.safetensors"):
        (run / name).unlink()


def _moved(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"dataset": "/nowhere/at/all"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "is not a training run"),
        (lambda run: (run / "log.jsonl").write_text(""), "log.jsonl is empty"),
        (lambda run: (run / "log.jsonl").unlink(), "log.jsonl cannot be read"),
        (
            lambda run: (run / "log.jsonl").write_text('{"a": 1}\n{}\n'),
            "jsonl is damaged in line 1",
        ),
        (lambda run: (run / "plan.json").write_text("{"), "plan.json cannot be read"),
        (lambda run: (run / "splits.json").write_text("{"), "splits.json cannot be read"),
        (lambda run: (run / "environment.json").write_text("["), "environment.json cannot be read"),
        (_moved, "no longer at /nowhere/at/all"),
        (_without_weights, "model.safetensors"),
        (lambda run: (run / "page.html").mkdir(), "page.html is a folder"),
    ],
)
def test_what_is_broken_is_named_and_no_page_is_left(
    made: tuple[Path, Path], page: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made[1], run)
    damage(run)
    result = _invoke("report", run, "--out", run / "page.html", "--device", "cpu")
    assert result.exit_code == 1
    assert message in result.output.replace("\n", "")
    assert not (run / "page.html").is_file()


def test_a_missing_prediction_is_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run = made
    shutil.copytree(dataset / "masks", tmp_path / "masks")
    (tmp_path / "masks" / "case3.png").unlink()
    result = _invoke("report", run, "--predictions", tmp_path / "masks", "--out", tmp_path / "p")
    assert result.exit_code == 1
    assert "lacks predictions of case3" in result.output.replace("\n", "")


def test_the_environment_tells_versions_devices_and_commit(tmp_path: Path) -> None:
    facts = describe()
    assert {"date", "torch", "swin_umamba_ops", "monai", "cpu"} <= facts.keys()
    assert commit(tmp_path) == "unknown"


@pytest.mark.skipif(
    not (Path(swin_umamba.__file__).parents[1] / ".git").exists(), reason="not of a checkout"
)
def test_runs_record_the_commit_of_their_code() -> None:
    """It was looked for in a folder of the package, which never has one."""
    assert re.fullmatch("[0-9a-f]{40}( with changes)?", describe()["commit"])


MEASURE = """
<script>
addEventListener("load", () => {
  const images = [...document.images];
  const shown = images.filter(image => image.complete && image.naturalWidth > 0);
  const page = document.documentElement;
  const panel = getComputedStyle(document.querySelector(".panel")).backgroundImage;
  document.title = JSON.stringify({
    images: images.length, shown: shown.length, wide: page.scrollWidth - page.clientWidth,
    paper: getComputedStyle(document.body).backgroundColor, panel: panel.slice(0, 20),
    fetched: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")).length,
  });
});
</script>
"""


@pytest.fixture
def measured(page: Path, tmp_path: Path) -> Any:
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome here")
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text(encoding="utf-8") + MEASURE, encoding="utf-8")

    def measure(width: int, *options: str) -> dict[str, Any]:
        root = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        done = subprocess.run(
            [
                *(str(BROWSER), "--headless", "--disable-gpu", *root, *options),
                *(f"--window-size={width},900", f"--user-data-dir={tmp_path / 'browser'}"),
                *("--virtual-time-budget=5000", "--dump-dom", copy.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        title = re.search(r"<title>(.*?)</title>", done.stdout)
        assert title is not None, done.stderr
        return dict(json.loads(unescape(title[1])))

    return measure


def test_a_browser_shows_every_picture_and_fetches_nothing(measured: Any) -> None:
    wide, narrow = measured(1280), measured(600)
    for found in (wide, narrow):
        assert found["images"] == found["shown"] > 20
        assert found["fetched"] == 0
        assert found["wide"] <= 0
        assert found["panel"].startswith('url("data:image/png')
    dark = measured(1280, "--blink-settings=preferredColorScheme=0")
    assert dark["paper"] != wide["paper"]
