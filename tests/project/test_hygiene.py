"""Committed files: short, and without names of a particular machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

ROOT = Path(__file__).parents[2]
MOST_LINES = 500
SOURCES = {".py", ".cu", ".cuh", ".cpp", ".h"}
TOP_LEVEL = {
    *("csrc", "swin_umamba_ops", "swin_umamba", "benchmarks", "tests", "docs", "mkdocs.yml"),
    *("setup.py", "pyproject.toml", "MANIFEST.in"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"),
}
# Homes and working folders of a machine, and package indexes other than the public ones.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:work|home|root|Users|mnt|workspace)/\w"
    r"|(?<![\w/])(?:\.\./)?shared/(?:fixtures|data|baselines|design)"
    r"|--(?:extra-)?index-url[ =](?!https://download\.pytorch\.org/)"
)


def _committed() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_the_top_level_holds_what_it_should() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in _committed()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for path in _committed()
        if path.suffix in SOURCES
    }
    assert len(lengths) > 50
    assert not {path: n for path, n in lengths.items() if n > MOST_LINES}


def test_no_file_names_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _committed()
        if path != Path(__file__).resolve() and b"\0" not in path.read_bytes()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found


def test_nothing_large_or_built_is_committed() -> None:
    for path in _committed():
        assert path.suffix not in {".so", ".o", ".whl", ".pyc", ".pt", ".pth"}, path
        assert path.stat().st_size < 2**21, path


@pytest.mark.skipif(tomllib is None, reason="tomllib came with Python 3.11")
def test_torch_is_asked_for_as_a_range_that_holds_the_one_here() -> None:
    import torch
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert {spec.operator for spec in asked["torch"]} == {">=", "<"}
    assert torch.__version__.split("+")[0] in asked["torch"]


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports them by name only: a second file with the same name is not collected."""
    names = [path.name for path in _committed() if path.match("tests/**/test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_citation_names_this_version() -> None:
    from swin_umamba import __version__

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
