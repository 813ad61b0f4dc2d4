"""README.md says what is so: its code runs, its files exist, its figures are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import swin_umamba_ops as ops
from benchmarks import __main__ as benchmarks
from swin_umamba import model_names
from swin_umamba.models.summary import summarize

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = {"dims": (16, 32), "depths": (1, 1), "d_state": 2}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def _python(holding: str) -> str:
    (block,) = [block for block in _blocks("python") if holding in block]
    return block


def _ran(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "README.md", "exec"), names)
    return names


def _anchor(heading: str) -> str:
    """The link target that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_op_runs_as_shown() -> None:
    torch.manual_seed(0)
    names = _ran(_python("ops.ss2d("))
    assert names["y"].shape == names["x"].shape
    assert names["y"].isfinite().all()
    assert _ran(_python("selective_scan_fn"))["selective_scan_fn"] is ops.selective_scan_fn


def test_model_runs_as_shown() -> None:
    names = _ran(_python("outputs = model(images)"), images=torch.zeros(1, 3, 50, 35))
    assert [tuple(out.shape[2:]) for out in names["outputs"]] == [(50, 35), (13, 9), (7, 5), (4, 3)]
    assert names["logits"].shape == (1, 4, 50, 35)


def test_training_runs_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        Path(folder).mkdir()
    for i in range(6):
        mask = rng.integers(0, 4, (70, 80), np.uint8)
        Image.fromarray(mask).save(f"masks/{i}.png")
        Image.fromarray(np.stack([60 * mask] * 3, -1)).save(f"images/{i}.png")
    Path("another.png").symlink_to("images/0.png")
    code = _python("train(config")
    assert "iterations=5000" in code
    short = f"iterations=2, patch_size=(64, 64), model_options={TINY}"
    names = _ran(code.replace("iterations=5000", short))
    assert names["labels"].shape == (70, 80)
    for name in ("config.json", "log.jsonl", "model.safetensors"):
        assert f"`{name}`" in TEXT
        assert (tmp_path / "runs/first" / name).is_file()


@pytest.mark.parametrize("name", model_names())
def test_figures_of_the_models(name: str) -> None:
    found = re.search(rf"^\| `{name}` \|.*\| ([\d.]+) M \| ([\d.]+) \|$", TEXT, re.MULTILINE)
    assert found is not None
    summary = summarize(name, in_channels=1, out_channels=14, size=(320, 320))
    first = name == "swin_umamba_v1"
    flops = summary.flops_paper_first if first else summary.flops_paper_later
    assert found.groups() == (f"{summary.params / 1e6:.2f}", f"{flops / 1e9:.1f}")


def test_backends_are_all_there() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]*\| [^|]*\|$", _section("Use the op"), re.MULTILINE)
    assert rows == list(ops.available_backends())


def _section(heading: str) -> str:
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_links_lead_somewhere() -> None:
    links = [target for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    headings = {_anchor(line) for line in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    assert len(links) > 4
    for target in links:
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (ROOT / target).is_file(), target


def test_variables_are_read_somewhere() -> None:
    written = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("swin_umamba", "swin_umamba_ops", "benchmarks", "csrc/building")
        for path in (ROOT / folder).rglob("*.py")
    )
    for variable in set(re.findall(r"\bSWIN_UMAMBA_[A-Z_]+[A-Z]\b", TEXT)):
        assert variable in written


@pytest.mark.parametrize(
    "line", [line for block in _blocks("sh") for line in block.splitlines() if "benchmarks" in line]
)
def test_benchmarks_take_what_is_shown(line: str) -> None:
    words = line.split("#")[0].split()
    assert words[:3] == ["python", "-m", "benchmarks"]
    with pytest.raises(SystemExit) as ended:
        benchmarks.main([*words[3:], "--help"])
    assert ended.value.code == 0


def test_ci_finds_its_two_commands() -> None:
    block = TEXT.split("<!-- ci: tests -->\n```sh\n")[1].split("```")[0]
    install, test_all = block.splitlines()
    assert "pip install" in install
    assert "pytest" in test_all
    assert ".venv" in install
