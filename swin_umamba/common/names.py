"""Names that come from files, as names of files.

A case's name may come from dataset.json, from a split, or from an archive of another system. It is
never a path: it becomes one component of one, here.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable

from swin_umamba.errors import UserError

MAX_BYTES = 255
"""The longest name that common file systems take, in bytes of UTF-8."""
_DIGEST = 8  # bytes


def check_case_name(name: object, source: str | os.PathLike[str]) -> str:
    """The name, if it can be one component of a path. source: where it was read, for the message.

    Raises UserError for what is no string, is empty, "." or "..", holds a separator or a control
    character, is no UTF-8, or is longer than MAX_BYTES.
    """
    problem = _problem(name)
    if problem is not None:
        raise UserError(f"{source}: the case name {_shown(name)} {problem}")
    assert isinstance(name, str)
    return name


def check_case_names(names: Iterable[object], source: str | os.PathLike[str]) -> list[str]:
    """`check_case_name` of each, and no two that some file systems take for one.

    Those that differ in case, or in how accents are composed, are: macOS and Windows would keep
    one file for both.
    """
    checked = [check_case_name(name, source) for name in names]
    seen: dict[str, str] = {}
    for name in checked:
        other = seen.setdefault(folded(name), name)
        if other != name:
            raise UserError(
                f"{source}: the case names {other!r} and {name!r} are one name where file systems"
                " ignore case or compose accents: rename one of them"
            )
    return checked


def file_name(name: str, suffix: str = "") -> str:
    """The name of the file that keeps what belongs to a case: one component, MAX_BYTES at most.

    suffix: what the file's name ends in, kept as it is. A name that is too long with it is cut,
    and a digest of the whole name keeps it apart from others. Raises UserError for a name that
    `check_case_name` refuses for another reason than its length.
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
    """What names have in common that some file systems take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(name: object, longest: int | None = MAX_BYTES) -> str | None:
    """Why a name cannot be a component of a path, or None."""
    if not isinstance(name, str):
        return f"is {type(name).__name__}, expected text"
    if not name.strip():
        return "is empty"
    if name in (".", ".."):
        return "is a folder, not a name"
    if "/" in name or "\\" in name:
        return "holds a path separator"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "holds a control character"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is no UTF-8: rename the file"
    if longest is not None and length > longest:
        return f"is {length} bytes long, expected at most {longest}"
    return None


def _shown(name: object) -> str:
    text = ascii(name) if isinstance(name, str) and not name.isprintable() else repr(name)
    return text if len(text) <= 120 else text[:117] + "..."
