"""JSON as written by other systems and other people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swin_umamba.common.jsons import MAX_DEPTH, load_json, load_object, parse_json
from swin_umamba.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@pytest.mark.slow
@given(VALUES, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]))
def test_every_encoding_gives_the_same(value: Any, encoding: str) -> None:
    for ascii_alone in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_alone)
        assert parse_json(text.encode(encoding)) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested"),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "nested"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"1e999", "out of range"),
        (b"9" * 5_000, "digits"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'"\xff\xfe\xfd"', "decode"),
        (b'[{"a": {"b": 1, "c": 2, "b": 3}}]', "'b' twice"),
        (b"", "Expecting"),
        (b"{", "Expecting"),
    ],
)
def test_what_is_no_json_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content)
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json cannot be read as a thing"):
        load_json(path, "a thing")


def test_nesting_below_the_limit_is_read() -> None:
    parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_json("[1]" + " " * 10) == [1]
    assert parse_json("[" + "{}," * 100 + "1]")[-1] == 1


def test_an_object_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"x\.json.*got a list, expected a JSON object"):
        load_object(path, "a thing")
    with pytest.raises(UserError, match=r"y\.json cannot be read as a thing: No such file"):
        load_object(tmp_path / "y.json", "a thing")
    with pytest.raises(UserError, match="Is a directory"):
        load_object(tmp_path, "a thing")
