"""Shared by all commands: consoles that print text literally, and one-line errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn
from rich.text import Text

from swin_umamba.common.files import reason_of
from swin_umamba.common.memory import is_out_of_gpu_memory, is_out_of_memory
from swin_umamba.errors import CombinedUserError, UserError

# Packages of the extra `train`, by import name.
TRAIN_PACKAGES = (
    "accelerate",
    "imagecodecs",
    "imageio",
    "matplotlib",
    "monai",
    "nibabel",
    "scipy",
    "tifffile",
)

# Characters that terminals interpret instead of showing: control characters except tab and line
# feed, bidirectional marks, and surrogates that stand for undecodable bytes.
_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Text with everything that a terminal would interpret replaced by escapes such as \\x1b."""
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class PlainConsole(Console):
    """A console that prints strings literally: no markup, no emoji, no terminal escapes.

    File, tensor and class names are therefore safe, also in tables and titles. For styled text use
    a rich Text made with `visible`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


out = PlainConsole()
err = PlainConsole(stderr=True)


class Words(ProgressColumn):
    """A progress bar column that formats a task's fields as plain text."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def render(self, task: Task) -> Text:
        return Text(visible(self.form.format(task=task)))


def progress(*columns: ProgressColumn, console: Console = err, transient: bool = True) -> Progress:
    """A progress bar, by default with the task's description and fraction done."""
    columns = columns or (Words("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, console=console, transient=transient)


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 mask", "2 masks"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def require_png(option: str, path: Path) -> None:
    """UserError unless a picture's name ends in .png, the only format written."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{option}: got {path}, expected a name that ends in .png")


def problem(message: str, *, word: str = "error", style: str = "bold red") -> None:
    """Print `word: message` on stderr as one line."""
    line = " ".join(message.split("\n"))
    err.print(Text.assemble((visible(f"{word}:"), style), " ", visible(line)), soft_wrap=True)


def warning(message: str) -> None:
    """Print `warning: message` on stderr as one line."""
    problem(message, word="warning", style="yellow")


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn an error with an external cause into one printed line and exit status 1.

    Handles UserErrors (several at once get one line each), missing packages, out of memory, and
    operating system errors about files.
    """
    try:
        yield
    except CombinedUserError as error:
        problem(error.head)
        for message in error.messages:
            err.print(Text(visible("- " + " ".join(message.split("\n")))), soft_wrap=True)
        raise typer.Exit(1) from error
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TRAIN_PACKAGES:
            raise
        message = f"this needs {error.name}: pip install 'swin-umamba[train]'"
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        message = f"{place}{reason_of(error)}"
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).split("\n")[0]
        message = f"out of memory: {reason}" if reason else "out of memory"
        if is_out_of_gpu_memory(error):
            message = f"{reason} Reduce batch or patch size, or use --amp"
    else:
        return
    problem(message)
    raise typer.Exit(1)
