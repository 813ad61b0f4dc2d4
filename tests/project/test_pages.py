"""README.md and docs/ are true: code runs, commands parse, links resolve."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import torch
import typer
from pages import PAGES, ROOT, Block
from PIL import Image

import swin_umamba_ops as ops
from benchmarks import __main__ as benchmarks
from swin_umamba import model_names
from swin_umamba.cli import app
from swin_umamba.models.summary import summarize

README = pages.text(ROOT / "README.md")
ALL = "\n".join(map(pages.text, PAGES))
TINY = {"dims": (16, 32), "depths": (1, 1), "d_state": 2}
RUN_ELSEWHERE = {"monai.md"}  # tests/train/test_monai_engines.py
TRAINING = pages.block("training.md", "train(config")


def _ran(code: str, page: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, masks and a run, made by the code that training.md shows."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(6):
        mask = rng.integers(0, 4, (70, 80), np.uint8)
        Image.fromarray(mask).save(folder / f"masks/{i}.png")
        Image.fromarray(np.stack([60 * mask] * 3, -1)).save(folder / f"images/{i}.png")
    for name in ("image.png", "another.png"):
        (folder / name).symlink_to("images/0.png")
    assert "iterations=5000" in TRAINING
    short = f"iterations=2, patch_size=(64, 64), model_options={TINY}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = _ran(TRAINING.replace("iterations=5000", short), "training.md")
    assert names["labels"].shape == (70, 80)
    return folder


def test_a_run_has_the_files_that_are_listed(workplace: Path) -> None:
    listed = re.findall(r"`([\w.]+)`", pages.section("training.md", "The run folder"))
    assert len(listed) > 5
    made_by_commands = {"curves.png", "plan.json", "splits.json"}  # not by train() alone
    for name in set(listed) - made_by_commands:
        assert (workplace / "runs/first" / name).is_file(), name


@pytest.mark.parametrize(
    "block",
    [b for b in pages.blocks("python") if b.code != TRAINING and b.page not in RUN_ELSEWHERE],
    ids=str,
)
def test_code_runs(block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.skipped:
        pytest.skip("the page says why")
    monkeypatch.chdir(workplace)
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)  # mamba-ssm.md sets it: restored afterwards
    torch.manual_seed(0)
    names = _ran(block.code, block.page, images=torch.zeros(1, 3, 50, 35))
    if "y" in names:
        assert names["y"].isfinite().all()
    if block.page == "models.md" and "outputs" in names:
        shapes = [tuple(out.shape[2:]) for out in names["outputs"]]
        assert shapes == [(50, 35), (13, 9), (7, 5), (4, 3)]
        assert names["logits"].shape == (1, 4, 50, 35)


def _lines() -> list[tuple[str, str]]:
    """Every command line of the shell blocks, with its page, without comments."""
    return [
        (block.page, words)
        for block in pages.blocks("sh")
        if not block.skipped
        for line in block.code.replace("\\\n", " ").splitlines()
        if (words := re.sub(r"(^|\s)#.*", "", line).strip())
    ]


def _commands(line: str) -> list[list[str]]:
    """The commands of a line, without the variables set before them."""
    parts = (re.sub(r"^(\w+=\S+ )+", "", part.strip()) for part in line.split("&&"))
    return [shlex.split(part) for part in parts]


def _parses(words: list[str]) -> None:
    """Check the words after `swin-umamba` against the command's options and arguments."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    if words[0].startswith("--"):
        assert words[0] in {name for option in group.params for name in option.opts} | {"--help"}
        return
    command = group.commands[words[0]]
    if words[1:] != ["--help"]:
        command.make_context(words[0], words[1:])


@pytest.mark.parametrize(("page", "line"), _lines())
def test_commands_are_accepted(page: str, line: str) -> None:
    for words in _commands(line):
        match words:
            case ["swin-umamba", *rest]:
                _parses(rest)
            case ["torchrun" | "accelerate", *_]:
                _parses(words[words.index("swin_umamba.cli") + 1 :])
            case ["python", "-m", "benchmarks", *rest]:
                with pytest.raises(SystemExit) as ended:
                    benchmarks.main([*rest, "--help"])
                assert ended.value.code == 0
            case ["python", "-m", "swin_umamba_ops"]:
                pass
            case ["python", "-m", "pytest", *rest]:
                assert all((ROOT / w).exists() for w in rest if w.startswith("tests/"))
            case ["python", script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file()
            case ["pip", "install", *_]:
                _extras_exist(words)
            case [
                "." | "bash" | "eval" | "export" | "mkdir" | "mkdocs" | "pre-commit" | "python3",
                *_,
            ]:
                pass
            case _:
                raise AssertionError(f"{page}: no test knows the command {words[0]!r}")


def _extras_exist(words: list[str]) -> None:
    extras = re.search(r"^\[project.optional-dependencies\]\n(.*?)^\[", _pyproject(), re.M | re.S)
    assert extras is not None
    known = set(re.findall(r"^(\w+) = \[", extras[1], re.MULTILINE))
    for word in words:
        found = re.fullmatch(r"(?:\.|swin-umamba)\[([\w,]+)\].*", word)
        assert found is None or set(found[1].split(",")) <= known


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def _mentions() -> list[tuple[str, str]]:
    """Commands and options within sentences: `swin-umamba train --resume`, `predict --overlays`."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    verbs = "|".join(group.commands)
    pattern = rf"`(?:swin-umamba )?((?:{verbs})(?: [^`]*)?)`"
    return [
        (page.name, " ".join(found.split()))
        for page in PAGES
        for found in re.findall(pattern, pages.prose(page))
    ]


@pytest.mark.parametrize(("page", "mention"), _mentions())
def test_options_within_sentences_exist(page: str, mention: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    verb, *words = mention.split()
    params = group.commands[verb].params
    known = {name for option in params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


def test_all_blocks_are_run_but_a_few() -> None:
    """Two that need other packages, the citation, and the diagram of docs/design.md."""
    skipped = [b.page for language in pages.LANGUAGES for b in pages.blocks(language) if b.skipped]
    assert sorted(skipped) == ["encoders.md", "nnunet.md"]
    fences = re.findall(r"^ *```(\w*)\n.*?^ *```$", ALL, re.DOTALL | re.MULTILINE)
    assert sorted(set(fences) - pages.LANGUAGES) == ["", "bibtex"]
    assert [fences.count(language) for language in ("", "bibtex")] == [1, 1]


def test_every_command_is_listed() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    listed = re.findall(r"^\| `swin-umamba ([\w-]+)` \|", ALL, re.MULTILINE)
    assert sorted(listed) == sorted(group.commands)


@pytest.mark.parametrize("name", model_names())
def test_figures_of_the_models(name: str) -> None:
    models = pages.text(ROOT / "docs/models.md")
    found = re.search(rf"^\| `{name}` \|.*\| ([\d.]+) M \| ([\d.]+) \|$", models, re.MULTILINE)
    assert found is not None
    summary = summarize(name, in_channels=1, out_channels=14, size=(320, 320))
    first = name == "swin_umamba_v1"
    flops = summary.flops_paper_first if first else summary.flops_paper_later
    assert found.groups() == (f"{summary.params / 1e6:.2f}", f"{flops / 1e9:.1f}")


def test_backends_are_all_there() -> None:
    section = pages.section("ops.md", "Backends")
    rows = re.findall(r"^\| `(\w+)` \| [^|]*\| [^|]*\|$", section, re.MULTILINE)
    assert rows == list(ops.available_backends())


@pytest.mark.parametrize("page", [*PAGES, *pages.OTHERS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", pages.prose(page))
    for target in (link for link in links if "://" not in link):
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in pages.anchors(linked), target


def test_every_page_can_be_reached() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (*PAGES[1:], *(ROOT / "docs").glob("*.ipynb")):
        assert f": {page.name}\n" in navigation, page.name


def test_variables_are_read_somewhere_and_listed() -> None:
    source = {"swin_umamba", "swin_umamba_ops", "benchmarks", "csrc/building"}
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in source
        for path in (ROOT / folder).rglob("*.py")
    )
    pattern = r"\bSWIN_UMAMBA_[A-Z_]+[A-Z]\b"
    listed = set(re.findall(pattern, pages.section("cli.md", "Environment variables")))
    assert {name for name in re.findall(pattern, ALL) if name not in code} == set()
    assert set(re.findall(pattern, ALL)) <= listed


def test_readme_is_one_page_and_ci_finds_its_two_commands() -> None:
    assert len(README.splitlines()) <= 150
    block = README.split("<!-- ci: tests -->\n```sh\n")[1].split("```")[0]
    install, test_all = block.splitlines()
    assert "pip install" in install
    assert "pytest" in test_all
    assert ".venv" in install


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    if shutil.which("mkdocs") is None:
        pytest.skip("mkdocs is not on the path")
    command = ["mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="swin_umamba_ops.ss2d"' in page
