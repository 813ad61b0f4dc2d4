"""Patients and clips: read from a file or from names, and never on both sides of a fold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swin_umamba.data import Split, make_splits
from swin_umamba.data.datasets.groups import (
    group_by_rule,
    leaking_groups,
    likely_clips,
    read_groups,
)
from swin_umamba.errors import UserError

NAMES = tuple(f"p{patient}_{frame:02d}" for patient in range(6) for frame in range(2 + patient))


@pytest.mark.parametrize("folds", [2, 3, 5, 9])
def test_folds_keep_groups_together(folds: int) -> None:
    groups = group_by_rule("(p.)_", NAMES)
    splits = make_splits(NAMES, folds=folds, groups=groups)
    assert len(splits) == min(folds, 6)
    held_out = [name for split in splits for name in split.val]
    assert sorted(held_out) == sorted(NAMES)
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= 7  # a patient's frames
    for split in splits:
        assert sorted(split.train + split.val) == sorted(NAMES)
        assert split.train
        assert split.held_out
        assert leaking_groups(groups, split.train, split.val) == ()
    assert make_splits(NAMES[::-1], folds=folds, groups=groups) == splits


def test_groups_of_one_case_change_nothing() -> None:
    assert make_splits(NAMES, groups={name: name for name in NAMES}) == make_splits(NAMES)


def test_leaks_are_named() -> None:
    groups = group_by_rule("(p.)_", NAMES)
    plain = make_splits(NAMES)[0]
    assert leaking_groups(groups, plain.train, plain.val)
    assert leaking_groups(groups, ("p1_00", "p2_00"), ("p2_01", "p3_01")) == ("p2",)
    assert not Split(NAMES, NAMES).held_out


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(UserError, match="all 2 cases are of the group 'x'"):
        make_splits(["a", "b"], groups={"a": "x", "b": "x"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.csv", "case,patient\na,1\nb,1\nc,2\nother,3\n"),
        ("g.csv", "a;1\r\nb;1\r\n\r\nc;2\r\n"),
        ("g.tsv", "\ufeffa\t1\nb\t1\nc\t2"),
        ("g.json", json.dumps({"a": 1, "b": "1", "c": "2", "other": "3"})),
    ],
)
def test_groups_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_groups(tmp_path / name, ["a", "b", "c"]) == {"a": "1", "b": "1", "c": "2"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("g.csv", "a,1\n", r"g\.csv names no group of case 'b'"),
        ("g.csv", "", r"^2 problems"),
        ("g.csv", "a,1\nb\n", r"g\.csv, line 2"),
        ("g.csv", "a,1\nb,1\na,2\n", r"gives 'a' the groups '1' and '2'"),
        ("g.csv", f"a,{'x' * 200_000}", r"g\.csv cannot be read as groups: field larger"),
        ("g.json", "{", r"g\.json cannot be read as groups"),
        ("g.json", '["a"]', r"g\.json cannot be read as groups: got a list"),
        ("g.json", '{"a": [1], "b": 2}', r"g\.json is not"),
        ("none.csv", None, r"none\.csv cannot be read as groups: No such file or directory$"),
    ],
)
def test_bad_groups_are_told(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_groups(tmp_path / name, ["a", "b"])


def test_rules_over_names() -> None:
    assert group_by_rule(r"p\d", ["p1_a", "p1_b"]) == {"p1_a": "p1", "p1_b": "p1"}
    assert group_by_rule(r"\w(\d)", ["p1_a"]) == {"p1_a": "1"}
    with pytest.raises(UserError, match="finds no group in the case name 'q1_b'"):
        group_by_rule(r"p\d", ["p1_a", "q1_b"])
    with pytest.raises(UserError, match="not a valid regular expression"):
        group_by_rule("(", ["a"])


def test_frames_of_clips_are_recognised() -> None:
    frames = [f"clip{c}_frame{i:03d}" for c in "ab" for i in range(4)]
    assert likely_clips(frames) == {name: name[:5] for name in frames}
    for plain in ([f"case_{i}" for i in range(9)], ["b909", "fc34", "0532"], ["a_1", "b_1", "c_1"]):
        assert likely_clips(plain) is None
