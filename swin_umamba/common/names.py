"""Case names from files, as file names.

A case name may come from dataset.json, a split, or an archive from another system. It is never
treated as a path: here it becomes one path component.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable

from swin_umamba.errors import UserError

MAX_BYTES = 255
"""Maximum file name length on common file systems, in bytes of UTF-8."""
_DIGEST = 8  # bytes


def check_case_name(name: object, source: str | os.PathLike[str]) -> str:
    """The name, if it can be one path component. source: where it was read, for the message.

    Raises UserError if it is not a string, is empty, "." or "..", contains a separator or control
    character, is not valid UTF-8, or is longer than MAX_BYTES.
    """
    problem = _problem(name)
    if problem is not None:
        raise UserError(f"{source}: the case name {_shown(name)} {problem}")
    assert isinstance(name, str)
    return name


def check_case_names(names: Iterable[object], source: str | os.PathLike[str]) -> list[str]:
    """`check_case_name` for each, and no two that some file systems consider equal.

    Names that differ only in case or in the composition of accents are such: macOS and Windows
    would keep one file for both.
    """
    checked = [check_case_name(name, source) for name in names]
    seen: dict[str, str] = {}
    for name in checked:
        other = seen.setdefault(folded(name), name)
        if other != name:
            raise UserError(
                f"{source}: the case names {other!r} and {name!r} are the same on file systems that"
                " ignore case or compose accents: rename one of them"
            )
    return checked


def file_name(name: str, suffix: str = "") -> str:
    """File name for data of a case: one component of at most MAX_BYTES.

    suffix: ending of the file name, kept as it is. A name that would be too long is cut, and a
    digest of the whole name keeps it unique. Raises UserError for a name that `check_case_name`
    refuses for any reason but its length.
    """
    problem = _problem(name, longest=None)
    if problem is not None:
        raise UserError(f"the case name {_shown(name)} {problem}")
    if len((name + suffix).encode()) <= MAX_BYTES:
        return name + suffix
    digest = "~" + hashlib.blake2b(name.encode(), digest_size=_DIGEST).hexdigest()
    room = MAX_BYTES - len((digest + suffix).encode())
    if room < 1:
        raise ValueError(f"suffix: got {suffix!r}, which leaves no room for a name")
    return name.encode()[:room].decode(errors="ignore") + digest + suffix


def folded(name: str) -> str:
    """A key that is equal for names that some file systems consider equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(name: object, longest: int | None = MAX_BYTES) -> str | None:
    """Why a name cannot be a path component, or None."""
    if not isinstance(name, str):
        return f"is {type(name).__name__}, expected text"
    if not name.strip():
        return "is empty"
    if name in (".", ".."):
        return "is a folder, not a name"
    if "/" in name or "\\" in name:
        return "contains a path separator"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "contains a control character"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8: rename the file"
    if longest is not None and length > longest:
        return f"is {length} bytes long, expected at most {longest}"
    return None


def _shown(name: object) -> str:
    text = ascii(name) if isinstance(name, str) and not name.isprintable() else repr(name)
    return text if len(text) <= 120 else text[:117] + "..."
