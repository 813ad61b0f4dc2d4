"""Text from files is shown literally, never interpreted."""

from __future__ import annotations

import io

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from swin_umamba.cli import console
from swin_umamba.cli.console import PlainConsole, errors_in_one_line, problem, progress, visible
from swin_umamba.errors import UserError
from swin_umamba.weights.report import LOADED, MISMATCHED, Entry, Report

NASTY = "a[/b] [red]c :smile: \x1b[31m\x9b5m\u202e\udc80\x07 end"
SHOWN = r"a[/b] [red]c :smile: \x1b[31m\x9b5m\u202e\udc80\x07 end"


def _console() -> tuple[PlainConsole, io.StringIO]:
    file = io.StringIO()
    return PlainConsole(file=file, width=200, force_terminal=True, color_system=None), file


def test_strings_are_shown_as_they_are_wherever_they_stand() -> None:
    shown, file = _console()
    table = Table("name", title=NASTY)
    table.add_row(NASTY)
    shown.print(NASTY, soft_wrap=True)
    shown.print(table)
    text = file.getvalue()
    assert text.count(SHOWN) == 3
    assert not {"\x1b", "\x9b", "\u202e", "\udc80", "\x07"} & set(text)


def test_an_account_of_tensors_may_hold_any_name() -> None:
    shown, file = _console()
    entries = [Entry(NASTY, NASTY, (1,), status, "[/]") for status in (LOADED, MISMATCHED)]
    Report(NASTY, NASTY, entries).render(shown)
    assert SHOWN in file.getvalue()


def test_a_bar_shows_any_description() -> None:
    shown, file = _console()
    with progress(console=shown, transient=False) as bar:
        bar.add_task(NASTY, total=1)
    assert SHOWN in file.getvalue()


@given(st.text(st.characters()))
def test_what_is_visible_stays_so(text: str) -> None:
    safe = visible(text)
    assert visible(safe) == safe
    assert not any(ord(c) < 32 and c not in "\t\n" for c in safe)
    if text.isascii() and text.isprintable():
        assert safe == text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no folder at [/x]\nfor it"), "error: no folder at [/x] for it\n"),
        (OSError(28, "No space left on device", "out/a.png"), "out/a.png: No space left on device"),
        (MemoryError("Unable to allocate 22 TiB"), "error: out of memory: Unable to allocate"),
        (ModuleNotFoundError("x", name="monai.data"), "this needs monai.data: pip install 'swin-"),
    ],
)
def test_causes_outside_of_the_program_are_told_in_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, file = _console()
    monkeypatch.setattr(console, "err", shown)
    with pytest.raises(typer.Exit) as left, errors_in_one_line():
        raise error
    assert left.value.exit_code == 1
    assert line in file.getvalue()
    assert file.getvalue().count("\n") == 1


def test_faults_of_the_program_go_on_to_the_boundary() -> None:
    with pytest.raises(ZeroDivisionError), errors_in_one_line():
        raise ZeroDivisionError
    with pytest.raises(ModuleNotFoundError), errors_in_one_line():
        raise ModuleNotFoundError("y", name="y")


def test_a_problem_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, file = _console()
    monkeypatch.setattr(console, "err", shown)
    problem("why", word=NASTY)
    assert file.getvalue() == f"{SHOWN}: why\n"
    assert isinstance(shown.render_str("x"), Text)
