"""The table in docs/encoders.md is what `summarize` counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from swin_umamba.models import encoder_names
from swin_umamba.models.summary import summarize

PAGE = (Path(__file__).parents[2] / "docs/encoders.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([\d ]+) \| ([\d.]+) M \| (.+?) \| (.+?) \|", re.MULTILINE)


def test_every_encoder_is_in_both_tables() -> None:
    assert [found[1] for found in ROW.finditer(PAGE)] == encoder_names()
    assert set(re.findall(r"^\| `(\w+)` \| `vssm", PAGE, re.MULTILINE)) == {
        name for name in encoder_names() if "v2" in name
    }


@pytest.mark.slow
@pytest.mark.parametrize("row", list(ROW.finditer(PAGE)), ids=lambda row: row[1])
def test_its_numbers_are_those_of_the_summary(row: re.Match[str]) -> None:
    for name, told in (("swin_umamba", row[4]), ("swin_umamba_d", row[5])):
        found = summarize(name, in_channels=1, out_channels=14, size=(320, 320), encoder=row[1])
        assert told == f"{found.params / 1e6:.1f} M, {found.work.macs / 1e9:.1f} G"
        encoder = sum(r.params for r in found.rows if r.stage.startswith(("patch", "encoder")))
        assert row[3] == f"{encoder / 1e6:.1f}"
