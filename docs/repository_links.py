"""A MkDocs hook: links from pages to files of the repository that are not pages.

Pages link to them as GitHub shows them, relative to docs/ (`../benchmarks/NOTES.md`). On the site,
pictures are copied, and other files become links into the repository, or plain text where its
address is not known.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Copy the pictures that pages show from outside of docs/."""
    pages = "\n".join(file.content_string for file in files.documentation_pages())
    for name in sorted({name for mark, _, name, _ in _LINK.findall(pages) if mark}):
        path = str(ROOT / name)
        files.append(File.generated(config, f"repository/{name}", abs_src_path=path))
    return files


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Rewrite the links of one page. FileNotFoundError if there is no such file."""

    def rewritten(found: re.Match[str]) -> str:
        mark, text, name, anchor = found.groups()
        if not (ROOT / name).exists():
            raise FileNotFoundError(f"linked from docs/: {name}")
        if mark:
            return f"![{text}](repository/{name})"
        if not config.repo_url:
            return text
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{name}{anchor or ''})"

    return _LINK.sub(rewritten, markdown)
