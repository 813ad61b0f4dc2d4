"""Messages of libraries do not flood a terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest

from swin_umamba.cli.remarks import EACH, LONG, show_remarks_in_one_line


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    last = logging.lastResort
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        show_remarks_in_one_line()
        yield
    logging.lastResort = last


def test_warnings_of_one_origin_end(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(100):
        warnings.warn(f"value {i} is\nodd \x1b[31m", stacklevel=1)
    warnings.warn("another", stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == EACH + 1
    assert lines[0] == r"warning: value 0 is odd \x1b[31m"
    assert "more of the same" in lines[EACH - 1]
    assert lines[-1] == "warning: another"


def test_what_is_logged_is_a_warning_like_others(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("somebody")
    logger.warning("a %s\nb", "\x1b]0;x\x07" + "y" * 2 * LONG)
    logger.info("nothing")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"warning: a \x1b]0;x\x07yyy")
    assert len(line) < LONG + 50


def test_what_is_for_programmers_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    warnings.warn("this name will go", DeprecationWarning, stacklevel=1)
    warnings.warn("this name will go", FutureWarning, stacklevel=1)
    assert capsys.readouterr().err == ""
