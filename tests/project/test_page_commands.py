"""The commands that README and docs show for a user's own dataset, run one after another."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pages
import pytest
from squares import write_squares
from typer.testing import CliRunner

from swin_umamba.cli import app

# A model and a training of seconds in place of the full ones.
SHORT = (
    "--iterations 2 --patch-size 32 32 --batch-size 2 --device cpu --set model_options.dims=[8,16]"
    " --set model_options.depths=[1,1] --set model_options.d_state=2 --set tensorboard=false"
)
TINY = {"train": SHORT, "predict": "--device cpu", "report": "--device cpu"}
SEQUENCES = {
    "README.md": ["train", "predict", "evaluate", "report"],
    "data.md": ["prepare", "prepare", "prepare", "cache", "cache", "cache", "prepare"],
    "prediction.md": ["predict", "evaluate", "evaluate", "evaluate", "report"],
    "export.md": ["export", "predict"],
}


def _commands(page: str) -> list[list[str]]:
    blocks = [b.code for b in pages.blocks("sh") if b.page == page and not b.skipped]
    lines = [re.sub(r"\s#.*", "", line).strip() for code in blocks for line in code.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("swin-umamba ")]
    assert [words[0] for words in found] == SEQUENCES[page]
    return found


def _run(words: list[str]) -> None:
    words = [{"NAME": "DATASET"}.get(word, word) for word in words]
    more = [] if "model.onnx" in words else shlex.split(TINY.get(words[0], ""))
    if words[0] == "predict":
        more.append("--overwrite")  # the pages predict into one folder more than once
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"


@pytest.mark.slow
def test_commands_run_in_the_order_of_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_squares(tmp_path / "DATASET")
    for name, target in (("IMAGES", "images"), ("TRUE_MASKS", "masks")):
        (tmp_path / name).symlink_to(tmp_path / "DATASET" / target)
    groups = [f"{path.stem},{i % 3}" for i, path in enumerate((tmp_path / "IMAGES").iterdir())]
    (tmp_path / "groups.csv").write_text("\n".join(groups))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    for words in _commands("data.md"):
        if words[0] == "prepare" and "--group-by" in words:
            words[words.index("--group-by") + 1] = r".*(\d)"  # the names here have no underscore
        _run(words)
    for words in _commands("README.md"):
        _run(words)
    (tmp_path / "others").symlink_to(tmp_path / "predictions")
    for page in ("prediction.md", "export.md"):
        for words in _commands(page):
            _run(words)
    assert (tmp_path / "runs/first/report.html").is_file()
    assert (tmp_path / "model.onnx").is_file()
