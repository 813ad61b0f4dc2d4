"""Names from files never leave their folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swin_umamba.common.names import MAX_BYTES, check_case_name, check_case_names, file_name
from swin_umamba.errors import UserError

ANY = st.text(st.characters(), max_size=300) | st.text("./\\a\0", max_size=6)


@given(ANY, st.sampled_from(["", ".png", "-0123456789abcdef.positions.npy"]))
def test_a_name_is_one_component_of_a_path_or_refused(name: str, suffix: str) -> None:
    try:
        made = file_name(name, suffix)
    except UserError:
        return
    path = Path("/folder") / made
    assert path.parent == Path("/folder")
    assert path.name == made
    assert len(made.encode()) <= MAX_BYTES
    assert made.endswith(suffix)
    assert made.isprintable() or not name.isprintable()


@given(ANY)
def test_what_the_check_lets_through_becomes_a_file_s_name(name: str) -> None:
    try:
        assert check_case_name(name, "x") == name
    except UserError:
        return
    assert file_name(name) == name


@given(st.text("ab", min_size=250, max_size=260), st.text("ab", min_size=250, max_size=260))
def test_long_names_stay_apart(one: str, other: str) -> None:
    assert (file_name(one, ".png") == file_name(other, ".png")) == (one == other)


def test_letters_of_several_bytes_are_not_cut_through() -> None:
    made = file_name("医" * 100, ".positions.npy")
    assert len(made.encode()) <= MAX_BYTES
    assert made.startswith("医医")
    assert made == file_name("医" * 100, ".positions.npy")


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "/etc/passwd", "..\\x", "a\0", "a\nb", "\x1b[31m", "\udcff"]
)
def test_names_that_are_none_are_told_with_their_file(name: str) -> None:
    with pytest.raises(UserError, match=r"dataset\.json: the case name "):
        check_case_name(name, "dataset.json")
    with pytest.raises(UserError, match="the case name "):
        file_name(name)


def test_no_text_is_no_name() -> None:
    for name in (None, 3, ["a"], {}):
        with pytest.raises(UserError, match="expected text"):
            check_case_name(name, "dataset.json")


def test_names_that_some_systems_take_for_one_are_told() -> None:
    composed, apart = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    for pair in (("Case", "case"), (composed, apart), ("STRASSE", "straße")):
        with pytest.raises(UserError, match="are the same"):
            check_case_names(pair, "images")
    assert check_case_names(["a", "b", "a"], "images") == ["a", "b", "a"]
