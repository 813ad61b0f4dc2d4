"""Models by name, and arguments that they refuse."""

from __future__ import annotations

import pytest
from model_cases import model_cases

from swin_umamba import create_model, model_names
from swin_umamba.models import SwinUMamba, register_model


def test_names():
    assert model_names() == ["swin_umamba", "swin_umamba_d", "swin_umamba_v1"]


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="name: got 'unet', expected one of swin_umamba, "):
        create_model("unet", in_channels=1, out_channels=2)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'swin_umamba' is already SwinUMamba"):
        register_model("swin_umamba")(SwinUMamba)


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_channels": 0}, "in_channels: got 0"),
        ({"out_channels": -1}, "out_channels: got -1"),
        ({"dims": (8,), "depths": (1,)}, r"dims: got \(8,\), expected two or more"),
        ({"dims": (8, 0), "depths": (1, 1)}, r"dims: got \(8, 0\)"),
        ({"dims": (8, 16), "depths": (1, 0)}, r"depths: got \(1, 0\)"),
        ({"dims": (8, 16), "depths": (1, 1, 1)}, "depths: got 3 stages, expected 2"),
        ({"drop_path_rate": 1.0}, "rate: got 1.0"),
        ({"d_state": 0}, "d_state: got 0"),
    ],
)
def test_bad_arguments(name, kwargs, message, small):
    with pytest.raises(ValueError, match=message):
        small(name, **kwargs)


def test_bad_arguments_of_one_model(small):
    with pytest.raises(ValueError, match=r"decoder_depths: got \(1,\), expected 2 numbers"):
        small("swin_umamba_d", decoder_depths=(1,))
    with pytest.raises(ValueError, match="stem_dim: got 0"):
        small("swin_umamba", stem_dim=0)
    with pytest.raises(ValueError, match="patch_size: got 0"):
        small("swin_umamba_d", patch_size=0)


def test_config_builds_the_same_model(small):
    model = small("swin_umamba_d", drop_path_rate=0.1)
    again = create_model(**model.config)
    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()
