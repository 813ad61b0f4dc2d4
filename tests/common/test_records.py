"""Typed records: strict, with one-line errors, and readable in later versions."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from swin_umamba.common.records import Count, Listed, Record, nested, record
from swin_umamba.errors import UserError


@record
class Point:
    x: float
    y: float = 0.0


@record
class Example(Record):
    WHAT: ClassVar[str] = "example"
    SCHEMA: ClassVar[int] = 3
    MIGRATIONS: ClassVar = {1: lambda old: {**old, "count": old["number"] + 1} | {"number": None}}

    count: Count = 1
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    size: Annotated[tuple[int, int], Listed] = (1, 2)
    kind: Literal["a", "b"] = "a"
    switch: bool = False
    points: Annotated[tuple[Annotated[Point, nested(Point)], ...], Listed] = ()
    number: int | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


def test_records_are_dataclasses_that_go_through_json(tmp_path: Path) -> None:
    one = Example(3, size=[4, 5], points=({"x": 1},), more={"a": [1, None]})  # type: ignore
    assert one.points == (Point(1.0),)
    assert one == Example.from_json(one.to_json()) == pickle.loads(pickle.dumps(one))
    assert json.loads(one.to_json())["schema"] == 3
    assert dataclasses.replace(one, count=4) == one.changed({"count": 4}) != one
    assert copy.deepcopy(one) == one
    one.save(tmp_path / "x.json")
    assert Example.load(tmp_path / "x.json") == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.count = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count: got 0, expected at least 1"),
        ({"count": 1.5}, "count: got 1.5, of the wrong type: expected a whole number, at least 1"),
        ({"count": True}, "count: got True, of the wrong type: expected a whole number"),
        ({"count": "1"}, "count: got '1', of the wrong type: expected a whole number"),
        ({"count": 10**5000}, "count: got a huge number, expected at least 1"),
        ({"share": 1.0}, "share: got 1.0, expected None or between 0 and 1"),
        ({"share": float("nan")}, "share: got nan, expected None or a number, between 0 and 1"),
        ({"size": (1, 2, 3)}, r"size: got \(1, 2, 3\), expected two whole numbers"),
        ({"size": (1,)}, r"size: got \(1,\), expected two whole numbers"),
        ({"size": "12"}, "size: got '12', of the wrong type: expected two whole numbers"),
        ({"kind": "c"}, "kind: got 'c', expected one of a, b"),
        ({"switch": "False"}, "switch: got 'False', of the wrong type: expected true or false"),
        ({"switch": 0}, "switch: got 0, of the wrong type: expected true or false"),
        ({"points": [{"x": "1"}]}, "points.0.x: got '1', of the wrong type: expected a number"),
        ({"points": [{}]}, "points.0.x is missing"),
        ({"points": [3]}, "points: got"),
        ({"more": []}, r"more: got \[\], of the wrong type: expected names with their values"),
        ({"cuont": 1}, "example: unknown fields cuont; did you mean count?"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(values: dict[str, Any], message: str) -> None:
    for make in (lambda: Example().changed(values), lambda: Example.from_values(values | NOW)):
        with pytest.raises(ValueError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


NOW = {"schema": 3}


def test_old_schemas_are_brought_up_and_newer_ones_refused(tmp_path: Path) -> None:
    assert Example.from_values({"number": 4}).count == 5
    assert Example.from_values({"schema": 1, "number": 4}).count == 5
    assert Example.from_values({"schema": 2, "count": 4}).count == 4
    path = tmp_path / "example.json"
    path.write_text('{"schema": 4, "unheard_of": 1}')
    with pytest.raises(UserError, match=r"example\.json .*schema: got 4.*a newer version"):
        Example.load(path)
    for number in (0, -1, True, "2", 1.5, None, []):
        with pytest.raises(ValueError, match="schema: got"):
            Example.from_values({"schema": number})
    for values in ([], "x", None, 3):
        with pytest.raises(ValueError, match="expected a JSON object"):
            Example.from_values(values)


def test_the_schema_is_json_s_own() -> None:
    schema = Example.json_schema()
    assert schema["properties"]["kind"]["enum"] == ["a", "b"]
    assert schema["properties"]["schema"]["maximum"] == 3
    assert schema["additionalProperties"] is False
    json.dumps(schema)
