"""A cache of the most recently used values."""

from __future__ import annotations

import pytest

from swin_umamba.common.recent import Recent


def test_what_was_not_used_longest_makes_room() -> None:
    made: list[str] = []
    recent: Recent[str] = Recent(2)

    def value(key: str) -> str:
        def make() -> str:
            assert len(recent) < 2  # there is room before it is made
            made.append(key)
            return key.upper()

        return recent.get(key, make)

    assert [value(key) for key in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]
    recent.clear()
    assert "a" not in recent
    with pytest.raises(ValueError, match="most: got 0"):
        Recent(0)
