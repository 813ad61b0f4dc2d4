"""The GPU architectures selected by the build."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from building import archs, plan
from building.archs import Arch

from swin_umamba_ops.backends import _architectures

KNOWN = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.0", [Arch(8, 0)]),
        ("8.0;9.0+PTX", [Arch(8, 0), Arch(9, 0, ptx=True)]),
        ("8.0, 8.6 9.0a", [Arch(8, 0), Arch(8, 6), Arch(9, 0, "a")]),
        ("12.0+ptx;", [Arch(12, 0, ptx=True)]),
        ("9.0;9.0", [Arch(9, 0)]),
        ("8.0-virtual 9.0", [Arch(8, 0, ptx=True, machine_code=False), Arch(9, 0)]),
    ],
)
def test_lists_are_read(text: str, expected: list[Arch]) -> None:
    assert archs.parse(text) == expected


@pytest.mark.parametrize("entry", ["Hopper", "90", "9", "9.0+SASS", "sm_90", "9.0b", "-9.0"])
def test_an_entry_that_is_not_understood_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match=r"not a GPU architecture") as caught:
        archs.parse(f"8.0;{entry}")
    assert repr(entry) in str(caught.value)


def test_an_architecture_that_is_too_old_is_named() -> None:
    with pytest.raises(ValueError, match=r"'7\.0' is too old"):
        archs.parse("7.0;9.0")


def test_flags() -> None:
    assert Arch(8, 6).flags() == ["-gencode=arch=compute_86,code=sm_86"]
    assert Arch(9, 0, ptx=True).flags() == [
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    ]
    (virtual,) = archs.parse("8.0-virtual")
    assert virtual.flags() == ["-gencode=arch=compute_80,code=compute_80"]
    assert str(virtual) == "8.0-virtual"
    assert Arch(9, 0, "a").flags() == ["-gencode=arch=compute_90a,code=sm_90a"]


def test_our_variable_comes_before_that_of_torch_and_both_before_the_gpus() -> None:
    both = {"SWIN_UMAMBA_CUDA_ARCHS": "9.0", "TORCH_CUDA_ARCH_LIST": "8.0;8.6+PTX"}
    assert archs.select(both, [(7, 5)], KNOWN) == [Arch(9, 0)]
    del both["SWIN_UMAMBA_CUDA_ARCHS"]
    assert archs.select(both, [(7, 5)], KNOWN) == [Arch(8, 0), Arch(8, 6, ptx=True)]
    assert archs.select({"TORCH_CUDA_ARCH_LIST": " "}, [(7, 5)], KNOWN) == [Arch(7, 5)]


@pytest.mark.parametrize("variable", archs.VARIABLES)
@pytest.mark.parametrize("value", ["13.0", "x"])
def test_an_error_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{variable}: .*{value}"):
        archs.select({variable: value}, [], KNOWN)


def test_gpus_that_are_seen_are_served_and_no_others() -> None:
    assert archs.select({}, [(9, 0), (8, 6), (9, 0)], KNOWN) == [Arch(8, 6), Arch(9, 0)]


def test_a_gpu_newer_than_nvcc_is_served_by_ptx() -> None:
    assert archs.select({}, [(12, 1)], KNOWN) == [Arch(12, 0, ptx=True)]
    assert archs.select({}, [(8, 6), (12, 1)], KNOWN) == [Arch(8, 6), Arch(12, 0, ptx=True)]
    assert archs.select({}, [(12, 0), (12, 1)], KNOWN) == [Arch(12, 0, ptx=True)]


def test_without_a_gpu_one_target_of_ptx_and_a_line_that_says_so() -> None:
    (only,) = archs.select({}, [], KNOWN)
    assert only == Arch(8, 0, ptx=True, machine_code=False)
    assert archs.select({}, [], [(7, 5), (8, 6), (9, 0)]) == archs.parse("8.6-virtual")
    assert archs.select({}, [], [(7, 5)]) == archs.parse("7.5-virtual")
    with pytest.raises(ValueError, match="none of the architectures"):
        archs.select({}, [], [(5, 0)])
    assert archs.VARIABLES[0] in archs.VIRTUAL_NOTE


@pytest.mark.parametrize("variable", archs.VARIABLES)
def test_all_is_every_generation_that_nvcc_knows_with_ptx_of_the_newest(variable: str) -> None:
    everything = archs.select({variable: "all"}, [(8, 6)], KNOWN)
    assert [(arch.major, arch.minor) for arch in everything] == list(archs.GENERATIONS)
    older = archs.select({variable: "ALL"}, [], [(7, 5), (8, 0), (9, 0)])
    assert older == [Arch(7, 5), Arch(8, 0), Arch(9, 0, ptx=True)]
    assert not any(arch.ptx for arch in everything[:-1])


def test_gpus_too_old_for_the_kernels_count_as_unseen() -> None:
    assert archs.select({}, [(6, 1)], KNOWN) == archs.select({}, [], KNOWN)


@pytest.mark.parametrize(
    ("capability", "built", "code"),
    [
        ((9, 0), ["8.0", "9.0"], (9, 0)),
        ((8, 9), ["8.0", "8.6", "9.0"], (8, 6)),
        ((9, 0), ["8.0-virtual"], (8, 0)),
        ((10, 3), ["9.0a", "9.0+PTX"], (9, 0)),
        ((7, 5), ["8.0-virtual"], None),
        ((8, 0), ["8.6"], None),
        ((12, 0), ["10.0"], None),
        ((9, 0), ["9.0a"], (9, 0)),
        ((9, 1), ["9.0a+PTX"], None),
        ((8, 0), ["8.0", "7.5+PTX"], (8, 0)),
    ],
)
def test_the_code_that_a_gpu_runs(
    capability: tuple[int, int], built: list[str], code: tuple[int, int] | None
) -> None:
    assert _architectures.code_for(capability, built) == code
    assert all(str(arch) == entry for entry, arch in zip(built, map(_only, built), strict=True))


def _only(entry: str) -> Arch:
    (arch,) = archs.parse(entry)
    return arch


def test_a_gpu_that_is_not_served_is_named_with_the_remedy() -> None:
    told = _architectures.advice((7, 5), ["8.0-virtual"])
    assert "8.0-virtual" in told
    assert "SWIN_UMAMBA_CUDA_ARCHS=7.5" in told


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(("named", "together"), [("8.0-virtual", True), ("9.0", False)])
def test_every_cuda_source_is_compiled_once(named: str, together: bool) -> None:
    """In few steps where only PTX is made, which a machine of two cores then has sooner."""
    environment = {**os.environ, "SWIN_UMAMBA_CUDA_ARCHS": named}
    steps = [s for s in plan.make(environment, "1.0").steps if s.rule == "nvcc"]
    compiled = [step.source for step in steps]
    for step in steps:
        compiled += [Path(step.flags[i + 1]) for i, f in enumerate(step.flags) if f == "-include"]
    assert sorted(compiled) == sorted((plan.CSRC / "cuda").rglob("*.cu"))
    assert len({step.object for step in steps}) == len(steps)
    assert (len(steps) < len(compiled) / 2) == together
