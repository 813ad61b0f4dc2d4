"""Holds for every command: exit codes, encodings, and no tracebacks for users."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "swin_umamba.cli")


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        env={**os.environ, **environment},
        encoding="utf-8",
        errors="replace",
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_help_is_shown_on_terminals_that_lack_the_dagger(encoding: str) -> None:
    result = _run("demo", "--help", PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    assert "--iterations" in result.stdout


@pytest.mark.slow
def test_exit_codes_of_errors_and_of_wrong_usage(tmp_path: Path) -> None:
    failed = _run("evaluate", str(tmp_path / "none"), str(tmp_path / "nor this"))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert _run("evaluate").returncode == 2
    assert _run("no-such-command").returncode == 2


@pytest.mark.slow
def test_an_unexpected_error_is_one_line(tmp_path: Path) -> None:
    """And a traceback on request, for a report."""
    script = tmp_path / "broken.py"
    script.write_text(
        "import importlib\n"
        "from swin_umamba.cli import app\n"
        "doctor = importlib.import_module('swin_umamba.cli.doctor')\n"
        "def broken(*words): raise ZeroDivisionError('a\\nb')\n"
        "doctor._section = broken\n"
        "app(['doctor'])\n"
    )
    call = [sys.executable, str(script)]
    plain = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: unexpected ZeroDivisionError: a b. ")
    assert plain.stderr.count("\n") == 1
    loud = {**os.environ, "SWIN_UMAMBA_TRACEBACK": "1"}
    shown = subprocess.run(call, capture_output=True, text=True, timeout=120, env=loud)
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_that_takes_nothing_is_one_line(tmp_path: Path) -> None:
    place = {**os.environ, "SWIN_UMAMBA_CACHE": str(tmp_path)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "cache"], stdout=full, stderr=subprocess.PIPE, text=True, env=place
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device (the disk is full)\n"


@pytest.mark.parametrize(
    ("module", "words", "then"),
    [
        ("typer", ("--help",), "raise"),
        ("torch", ("summary",), "raise"),
        ("torch", ("summary",), "raise ImportError('twice')"),
        ("typer", ("--help",), "sys.exit(1)"),
    ],
    ids=["while the commands are imported", "within a command", "turned to another", "swallowed"],
)
def test_ctrl_c_during_imports_ends_without_a_traceback(
    tmp_path: Path, module: str, words: tuple[str, ...], then: str
) -> None:
    """A module in front of the real one reports that it is being imported, and takes its time."""
    (tmp_path / f"{module}.py").write_text(
        "import sys, time\nprint('importing', flush=True)\n"
        f"try: time.sleep(60)\nexcept KeyboardInterrupt: {then}\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "bug in swin-umamba" not in errors
    assert time.monotonic() - began < 30
