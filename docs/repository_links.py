"""A MkDocs hook for links that work on GitHub and on the site.

Pages link to repository files outside of docs/ by relative paths (`../pyproject.toml`). On the
site, pictures are copied, and other files become links into the repository, or plain text if its
address is not known. Notebooks link to pages by file name, which MkDocs resolves in Markdown only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
_PAGE = re.compile(r'href="([\w-]+)\.md(#[^"]*)?"')
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Copy pictures that pages include from outside of docs/."""
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


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Resolve the links of a notebook. FileNotFoundError if there is no such page."""

    def resolved(found: re.Match[str]) -> str:
        name, anchor = found.groups()
        if not (ROOT / "docs" / f"{name}.md").exists():
            raise FileNotFoundError(f"linked from {page.file.src_uri}: {name}.md")
        return f'href="../{name}/{anchor or ""}"'

    return _PAGE.sub(resolved, html) if page.file.src_uri.endswith(".ipynb") else html
