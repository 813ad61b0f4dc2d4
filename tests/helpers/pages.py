"""README.md and the pages of docs/: their code, commands, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# Their code is run and their links are followed as well, but they are no pages of the site.
OTHERS = (ROOT / ".github/CONTRIBUTING.md", ROOT / ".github/SECURITY.md")
LANGUAGES = {"python", "sh"}
_BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `skipped` if the line above says why it is not run."""

    page: str
    language: str
    code: str
    skipped: bool

    def __str__(self) -> str:
        return f"{self.page}: {self.code.splitlines()[0][:40]}"


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(language: str) -> list[Block]:
    return [
        Block(page.name, language, code, bool(mark))
        for page in (*PAGES, *OTHERS)
        for mark, found, code in _BLOCK.findall(text(page))
        if found == language
    ]


def block(page: str, holding: str) -> str:
    """The code of the one Python block of a page that holds a string."""
    (found,) = [b for b in blocks("python") if b.page == page and holding in b.code]
    return found.code


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", text(page))


def section(page: str, heading: str) -> str:
    """The text below a second-level heading of a page of docs/."""
    found: str = text(ROOT / "docs" / page).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return found


def anchors(page: Path) -> set[str]:
    """The link targets that Markdown viewers give to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
