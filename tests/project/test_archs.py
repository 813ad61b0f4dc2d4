"""Which GPU architectures are compiled for."""

from __future__ import annotations

import pytest
from building import archs

KNOWN = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)]


def _texts(found: list[archs.Arch]) -> list[str]:
    return [str(arch) for arch in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9.0", ["9.0"]),
        ("8.0;9.0+PTX", ["8.0", "9.0+PTX"]),
        (" 8.0, 9.0a 12.0+ptx ;", ["8.0", "9.0a", "12.0+PTX"]),
        ("10.0f;10.0f", ["10.0f"]),
    ],
)
def test_list_is_read(text: str, expected: list[str]) -> None:
    assert _texts(archs.parse(text)) == expected


@pytest.mark.parametrize("text", ["Hopper", "9", "9.0b", "8.0;;x", "90", "9.0+SASS", ""])
def test_bad_entry_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no GPU architecture; expected"):
        archs.parse(text)


def test_too_old_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'7\.0' is too old: the kernels need 7\.5"):
        archs.parse("8.0;7.0")


def test_flags() -> None:
    assert archs.parse("9.0a")[0].flags() == ["-gencode=arch=compute_90a,code=sm_90a"]
    assert archs.parse("12.0+PTX")[0].flags() == [
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]


def test_own_variable_comes_before_torchs() -> None:
    both = {"SWIN_UMAMBA_CUDA_ARCHS": "8.0", "TORCH_CUDA_ARCH_LIST": "9.0"}
    assert _texts(archs.select(both, [(8, 9)], KNOWN)) == ["8.0"]
    assert _texts(archs.select({**both, "SWIN_UMAMBA_CUDA_ARCHS": " "}, [], KNOWN)) == ["9.0"]


@pytest.mark.parametrize("variable", archs.VARIABLES)
@pytest.mark.parametrize(("text", "reason"), [("6.1", "too old"), ("13.0", "does not compile")])
def test_named_ones_that_cannot_be(variable: str, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{variable}: .*{reason}"):
        archs.select({variable: text}, [], KNOWN)


def test_gpus_here_are_enough() -> None:
    assert _texts(archs.select({}, [(9, 0), (8, 0), (9, 0)], KNOWN)) == ["8.0", "9.0"]


def test_without_a_gpu_the_default_and_ptx_of_the_newest() -> None:
    expected = ["7.5", "8.0", "9.0", "10.0", "12.0+PTX"]
    assert _texts(archs.select({}, [], KNOWN)) == expected
    assert _texts(archs.select({}, [(7, 0)], KNOWN)) == expected
    assert _texts(archs.select({}, [], [(7, 5), (8, 0), (9, 0)])) == ["7.5", "8.0", "9.0+PTX"]


def test_gpu_newer_than_nvcc_gets_ptx() -> None:
    found = archs.select({}, [(13, 0)], KNOWN)
    assert _texts(found)[-1] == "12.0+PTX"


def test_nvcc_that_knows_none() -> None:
    with pytest.raises(ValueError, match="compiles for none of the architectures"):
        archs.select({}, [], [(5, 0)])
