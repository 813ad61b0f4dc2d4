"""Groups of cases that belong together, such as those of one patient or the frames of one clip."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from swin_umamba.common.files import reason_of
from swin_umamba.common.jsons import load_object
from swin_umamba.common.record_errors import shown
from swin_umamba.data.datasets.problems import Problems
from swin_umamba.errors import UserError

# A frame number at the end of a name, and its separator.
_FRAME = re.compile(r"(?:[ _.\-][A-Za-z]{0,8})?[ _.\-]?\d+$")
_MAX_BYTES = 64 << 20


def read_groups(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The group of each case, from a file; other names in it are ignored.

    JSON: {name: group, ...}; otherwise CSV with a name and its group per line, with or without a
    header. Raises UserError, naming the file, if it cannot be read, and for every case without a
    group or with two.
    """
    pairs = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)
    problems, wanted = Problems(path), set(names)
    groups: dict[str, str] = {}
    for name, group in pairs:
        if name in wanted and groups.get(name, group) != group:
            problems.add(f"{path} gives {name!r} the groups {groups[name]!r} and {group!r}")
        groups[name] = group
    for name in names:
        if name not in groups:
            problems.add(f"{path} names no group of case {name!r}")
    problems.raise_any()
    return {name: groups[name] for name in names}


def _from_json(path: Path) -> list[tuple[str, str]]:
    content = load_object(path, "groups")
    if not all(isinstance(group, str | int) for group in content.values()):
        raise UserError(f'{path} is not {{"name": "group", ...}}')
    return [(name, str(group)) for name, group in content.items()]


def _from_csv(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES >> 20} MiB")
        text = content.decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except (OSError, ValueError, csv.Error) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read as groups: {reason}") from error
    pairs = []
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != 2 or not all(cells):
            raise UserError(
                f"{path}, line {number}: got {shown(row)}, expected a name and its group"
            )
        pairs.append((cells[0], cells[1]))
    return pairs


def group_by_rule(rule: str, names: Sequence[str]) -> dict[str, str]:
    r"""The group of each case, from its name: the match of a regular expression at its beginning.

    rule: such as "(.*)_" or r"patient\d+"; its first parenthesis, if any, is the group. Raises
    UserError for an invalid expression, and for every name that does not match.
    """
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(f"group_by: {rule!r} is not a valid regular expression: {error}") from error
    problems, groups = Problems(f"group_by {rule!r}"), {}
    for name in names:
        match = pattern.match(name)
        found = match and match[min(pattern.groups, 1)]
        if not found:
            problems.add(f"group_by: {rule!r} finds no group in the case name {name!r}")
        else:
            groups[name] = found
    problems.raise_any()
    return groups


def leaking_groups(
    groups: Mapping[str, str], train: Sequence[str], val: Sequence[str]
) -> tuple[str, ...]:
    """The groups with cases on both sides of a fold, sorted."""
    return tuple(sorted({groups[n] for n in train} & {groups[n] for n in val}))


def likely_clips(names: Sequence[str]) -> dict[str, str] | None:
    """If names look like numbered frames of a few clips: the clip of each. None otherwise.

    They do if, without their last number, most names are shared by several cases, and there are at
    least two clips.
    """
    stems = {name: _FRAME.sub("", name) for name in names}
    counts = Counter(stems.values())
    shared = sum(count for stem, count in counts.items() if count > 1 and stem)
    if len(counts) < 2 or "" in counts or 2 * shared <= len(names):
        return None
    return stems
