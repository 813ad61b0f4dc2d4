"""The help of every command: flags without values, and correct names and defaults."""

from __future__ import annotations

import inspect
import re

import pytest
import typer
from typer.testing import CliRunner

import swin_umamba
from swin_umamba.cli import app, commands
from swin_umamba.common.encoders import DEFAULT_ENCODER
from swin_umamba.models import baseline_names, encoder_names, model_names
from swin_umamba.runs.config import TrainConfig

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, typer.core.TyperGroup)
# Defaults described in words, for values decided later.
WORDS = re.compile(r"from the (images|GPU's memory and the images; 2 on a CPU)|auto")


def _help(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["", *GROUP.commands])
def test_flags_have_no_type_and_every_option_says_something(name: str) -> None:
    words = [name] if name else []
    shown = _help(*words)
    assert not re.search(r"<bool>|list\[| range>|<\w+,\w+>", shown)
    for title in ("Data", "Model and weights", "Training", "Running"):
        assert (f"\u2500 {title} \u2500" in shown) == (name in ("train", "pretrain")), title
    assert "--help" in shown
    command = GROUP.commands[name] if name else GROUP
    for option in command.params:
        assert getattr(option, "help", None) or option.show_default, option.name


def test_the_program_lists_its_commands_completion_and_exit_codes() -> None:
    shown = _help()
    for word in ("--version", "--install-completion", "130 Ctrl-C", *GROUP.commands):
        assert word in shown


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"swin-umamba {swin_umamba.__version__}\n")


def test_completion_is_offered_for_a_shell() -> None:
    result = CliRunner().invoke(
        app, [], prog_name="swin-umamba", env={"_SWIN_UMAMBA_COMPLETE": "source_bash"}
    )
    assert result.exit_code == 0
    assert "complete" in result.output


def test_the_names_that_are_listed_are_those_that_can_be_created() -> None:
    def words(text: str) -> list[str]:
        return re.findall(r"[a-z]\w+", re.sub(r"\([^)]*\)", "", text))

    assert words(commands.MODELS) == list(model_names())
    assert words(commands.BASELINES) == list(baseline_names())
    assert words(commands.ENCODERS) == list(encoder_names())


def test_defaults_are_those_of_the_config() -> None:
    config = TrainConfig()
    checked = 0
    for option in GROUP.commands["train"].params:
        said = option.show_default
        if isinstance(said, str) and hasattr(config, option.name or ""):
            value = getattr(config, option.name or "")
            if option.name == "encoder":
                value = value or DEFAULT_ENCODER  # none where a baseline is trained
            checked += 1
            if WORDS.fullmatch(said) and value != said:
                continue
            number = said.replace(",", "")
            assert str(value) == number or float(number) == value, option.name
    assert checked > 7


def test_signs_that_a_terminal_lacks_have_a_like() -> None:
    from swin_umamba.cli.application import _PLAIN

    assert "Swin-UMamba\u2020 \u2026 \u00e9".encode("ascii", _PLAIN) == rb"Swin-UMamba+ ... \xe9"


def test_paragraphs_are_wrapped_by_the_terminal_alone() -> None:
    written = "One\n    two.\n\n    Three\n    four."
    assert commands.in_paragraphs(written) == "One two.\n\nThree four."
    for name, command in GROUP.commands.items():
        paragraphs = (command.help or "").split("\n\n")
        assert not any("\n" in paragraph for paragraph in paragraphs), name


def test_flags_that_are_off_by_default_show_no_negative_but_take_it() -> None:
    assert "--no-ema" not in _help("convert")
    assert "--no-postprocessing" in _help("predict")
    missing = CliRunner().invoke(app, ["convert", "missing.pth", "x.safetensors", "--no-ema"])
    assert missing.exit_code == 1  # and not 2, wrong usage


def test_docstrings_of_commands_are_short_enough_to_read() -> None:
    for name, command in GROUP.commands.items():
        lines = inspect.cleandoc(command.help or "").splitlines()
        assert 1 <= len(lines) <= 9, name


def test_an_encoder_that_does_not_fit_is_an_error_of_one_line() -> None:
    for words, said in (
        (["dynunet", "--encoder", "vmamba_tiny"], "encoder: got 'vmamba_tiny', expected none"),
        (["swin_umamba", "--encoder", "resnet"], "encoder: got 'resnet', expected one of vmamba"),
    ):
        result = CliRunner().invoke(app, ["summary", *words])
        assert result.exit_code == 1
        assert said in result.stderr
