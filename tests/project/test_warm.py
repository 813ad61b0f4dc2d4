"""Programs in forked processes end as those that Python starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ranks_helpers import launched, launcher
from warm import AVAILABLE, Warm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AVAILABLE, reason="forks, with descriptors sent to it"),
]


@pytest.mark.parametrize(
    ("code", "exit_code", "printed"),
    [
        ("print(sys.argv[1:], __name__)", 0, "['a', 'b'] __main__\n"),
        ("atexit.register(print, 'left'); sys.exit(3)", 3, "left\n"),
        ("sys.exit('no')", 1, "no\n"),
        ("raise ValueError('wrong')", 1, "ValueError: wrong\n"),
        ("print(os.environ['OF_THIS'], 'HOME' in os.environ)", 0, "test False\n"),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_it_ends_as_a_started_one(tmp_path: Path, code: str, exit_code: int, printed: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import atexit, os, sys\n{code}\n")
    process = Warm([str(program), "a", "b"], {"OF_THIS": "test"})
    text, _ = process.communicate(60)
    assert process.returncode == exit_code
    assert text.endswith(printed)


def test_a_signal_reaches_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time\ntime.sleep(60)\n")
    process = Warm([str(program)], dict(os.environ))
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


def test_a_process_that_fails_fails_its_launcher(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os\nassert os.environ['RANK'] == '0', 'second'\n")
    with pytest.raises(AssertionError, match="second"):
        launched(launcher("torchrun", 2), device="cpu", arguments=[program])
