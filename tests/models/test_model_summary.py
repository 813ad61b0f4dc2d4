"""Parameters and FLOPs compared with the published figures."""

from __future__ import annotations

import io

import pytest
import torch
from model_cases import build, model_cases, options_of
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from swin_umamba.models.flops import Flops, count_flops
from swin_umamba.models.summary import summarize

PARAMS = {
    "swin_umamba": 59_889_368,
    "swin_umamba_d": 27_497_720,
    "swin_umamba_v1": 40_425_176,
    "swin_umamba+vmamba_v2_tiny_s1l8": 67_227_800,
    "swin_umamba_d+vmamba_v2_tiny_s1l8": 35_691_512,
}
GMACS = {
    "swin_umamba": 63.68,
    "swin_umamba_d": 12.34,
    "swin_umamba_v1": 56.61,
    "swin_umamba+vmamba_v2_tiny_s1l8": 65.83,
    "swin_umamba_d+vmamba_v2_tiny_s1l8": 15.34,
}
# GFLOPs at 1x1x320x320: (model, convention, as published, by the convention's rule)
PUBLISHED = [
    ("swin_umamba_v1", "flops_paper_first", 58.4, 58.3),
    ("swin_umamba_d", "flops_paper_first", 15.0, 15.2),
    ("swin_umamba", "flops_paper_later", 68.0, 67.6),
    ("swin_umamba_d", "flops_paper_later", 18.9, 18.8),
]


@pytest.fixture(scope="module")
def summaries():
    return {
        name: summarize(**options_of(name, in_channels=1, out_channels=14, size=(320, 320)))
        for name in model_cases()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", model_cases())
def test_parameters_are_exact(name, summaries):
    assert summaries[name].params == PARAMS[name]


@pytest.mark.parametrize("name", model_cases())
def test_multiply_adds_are_exact(name, summaries):
    assert round(summaries[name].work.macs / 1e9, 2) == GMACS[name]


@pytest.mark.parametrize(("name", "convention", "published", "by_rule"), PUBLISHED)
def test_flops_are_the_published(name, convention, published, by_rule, summaries):
    gflops = getattr(summaries[name], convention) / 1e9
    assert gflops == pytest.approx(published, rel=0.015)
    assert round(gflops, 1) == by_rule


@pytest.mark.parametrize("name", model_cases())
def test_stages_hold_every_parameter_once(name, small):
    model = small(name)
    staged = [p for parts in model.stages().values() for m in parts for p in m.parameters()]
    assert len(staged) == len(list(model.parameters()))
    assert {id(p) for p in staged} == {id(p) for p in model.parameters()}


def test_stages_add_up_and_grow_with_the_batch(summaries):
    one = summaries["swin_umamba_d"]
    assert sum((row.work for row in one.rows), Flops()) == one.work
    assert sum(row.flops for row in one.rows) == one.flops_paper_later
    two = summarize("swin_umamba_d", in_channels=1, out_channels=14, size=(320, 320), batch=2)
    assert two.flops_paper_first == 2 * one.flops_paper_first
    assert two.params == one.params


def test_sizes_count_as_padded():
    kwargs = {"in_channels": 1, "out_channels": 2, "dims": (8, 16), "depths": (1, 1)}
    odd = summarize("swin_umamba_v1", size=(13, 17), **kwargs)
    assert odd.work == summarize("swin_umamba_v1", size=(16, 24), **kwargs).work


def test_rules_agree_with_torchs_counter():
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(6, 5, 2, stride=2),
        nn.Flatten(2),
        nn.Linear(80, 7),
    )
    x = torch.zeros(3, 4, 8, 10)
    with FlopCounterMode(display=False) as counter, count_flops(model) as counts:
        model(x)
    assert 2 * sum(flops.macs for flops in counts.values()) == counter.get_total_flops()


def test_nothing_is_left_on_the_model(small, image):
    model = small("swin_umamba_d")
    with count_flops(model) as counts:
        model(image(1, 2, 16, 16))
    before = dict(counts)
    model(image(1, 2, 32, 32))
    assert counts == before


def test_table_shows_every_stage_and_the_total(summaries):
    text = io.StringIO()
    summaries["swin_umamba_v1"].render(Console(file=text, width=120))
    for row in summaries["swin_umamba_v1"].rows:
        assert row.stage in text.getvalue()
    assert "40,425,176" in text.getvalue()
    assert "58.3" in text.getvalue()


def test_summary_computes_nothing():
    """An input that no machine could hold."""
    summary = summarize("swin_umamba", in_channels=1, out_channels=2, size=(2**17, 2**17), batch=64)
    assert summary.flops_paper_first > 1e17


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"size": (0, 32)}, "height: got 0"), ({"size": (32, 32), "batch": 0}, "batch: got 0")],
)
def test_bad_size(kwargs, message):
    with pytest.raises(ValueError, match=message):
        summarize("swin_umamba", in_channels=1, out_channels=2, **kwargs)


@pytest.mark.parametrize("name", model_cases())
def test_summary_builds_what_create_model_builds(name):
    kwargs = {"in_channels": 3, "out_channels": 2, "dims": (8, 16), "depths": (1, 2), "d_state": 2}
    summary = summarize(**options_of(name, size=(32, 32), **kwargs))
    model = build(name, **kwargs)
    assert summary.params == sum(p.numel() for p in model.parameters())
