"""mamba-ssm's Mamba-1 surface: its parameter grid against float64, its calls, its layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import assert_close_to_float64, noise_like
from hypothesis import given, settings
from hypothesis import strategies as st
from mamba_ssm_grid import DTYPES, LENGTHS, Case, cases, failures, make
from torch import Tensor

import swin_umamba_ops as ops
from swin_umamba_ops import vmamba


def _inputs(length: int, dtype: torch.dtype = torch.float32, **options: Any) -> dict[str, Tensor]:
    """The tensors of a case of the grid; options: see mamba_ssm_grid.Case."""
    return make(Case(length, dtype, **options))


def _widened(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: t.to(torch.complex128 if t.is_complex() else torch.float64)
        for name, t in inputs.items()
    }


def _run(inputs: dict[str, Tensor], softplus: bool, backend: str) -> dict[str, Tensor]:
    """Output, last state, and every gradient, all real."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in inputs.items()}
    out, last = ops.selective_scan_fn(
        **leaves, delta_softplus=softplus, return_last_state=True, backend=backend
    )
    assert out.dtype == inputs["u"].dtype
    assert last.shape == (out.shape[0], *inputs["A"].shape)
    assert last.is_complex() == inputs["A"].is_complex()
    gradients = torch.autograd.grad(out, list(leaves.values()), noise_like(out).to(out.dtype))
    found = {"out": out, "last": last}
    found |= {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}
    for name, g in zip(leaves, gradients, strict=True):
        assert g.dtype == inputs[name].dtype
    return {
        name: (torch.view_as_real(t.detach()) if t.is_complex() else t.detach())
        for name, t in found.items()
    }


def _check(inputs: dict[str, Tensor], softplus: bool, backend: str = "auto") -> None:
    exact = _run(_widened(inputs), softplus, "reference")
    plain = _run(inputs, softplus, "reference")
    assert_close_to_float64(_run(inputs, softplus, backend), exact, plain)


# ---- mamba-ssm's own lists


def test_the_grid_has_all_cases() -> None:
    assert sum(len(list(cases(is_complex=c))) for c in (False, True)) == 12_480


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_a_sample_of_the_grid(is_complex: bool) -> None:
    """Every 31st of the short ones: the number shares no factor with the lists' lengths."""
    for case in list(cases((8, 16, 32), is_complex=is_complex))[::31]:
        assert not failures(case), case


@pytest.mark.slow
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("length", [8, 372])
def test_all_cases_of_a_length(length: int, is_complex: bool) -> None:
    """mamba_ssm_grid.py, run by hand, takes all lengths."""
    found = list(cases((length,), is_complex=is_complex))
    assert len(found) == 480
    for case in found:
        assert not failures(case), case


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("length", [64, 1134])
def test_all_real_cases_of_a_length_on_a_gpu(length: int, backend: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    if (reason := ops.available_backends()[backend]) is not None:
        pytest.skip(reason)
    for case in cases((length,), is_complex=False):
        assert not failures(case, backend, "cuda"), case


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    length=st.sampled_from((1, *LENGTHS[:7])),
    dtype=st.sampled_from(DTYPES),
    is_complex=st.booleans(),
    variable=st.tuples(st.booleans(), st.booleans()),
    groups=st.sampled_from((1, 2)),
    softplus=st.booleans(),
    options=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_the_grid_against_float64(
    length: int,
    dtype: torch.dtype,
    is_complex: bool,
    variable: tuple[bool, bool],
    groups: int,
    softplus: bool,
    options: tuple[bool, bool, bool],
) -> None:
    inputs = _inputs(
        length, dtype, is_complex=is_complex, variable_B=variable[0], variable_C=variable[1],
        groups=groups,
        **dict(zip(("has_D", "has_z", "has_bias"), options, strict=True)),
    )  # fmt: skip
    _check(inputs, softplus)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS[7:])
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_long_sequences_against_float64(length: int, is_complex: bool) -> None:
    _check(_inputs(length, is_complex=is_complex), True)


def test_constant_maps_on_each_backend(target: Any) -> None:
    inputs = {n: t.to(target.device) for n, t in _inputs(70, variable_B=False).items()}
    expected = ops.selective_scan(**inputs, backend="reference")
    torch.testing.assert_close(ops.selective_scan(**inputs, backend=target.backend), expected)


@pytest.mark.parametrize("length", [1, 2, 3, 9, 11, 16])
def test_complex_states_in_chunks_are_those_of_the_formula(length: int) -> None:
    """Whole and half filled last chunks, from a state; second derivatives too."""
    inputs = _widened(_inputs(length, is_complex=True, groups=2))
    state = torch.randn(2, 4, 8, dtype=torch.complex128)
    leaves = [t.requires_grad_() for t in (*inputs.values(), state)]
    found = []
    for backend in ("pytorch", "reference"):
        out, last = ops.selective_scan(
            **inputs, delta_softplus=True, return_last_state=True, initial_state=state,
            backend=backend,
        )  # fmt: skip
        loss = out.square().sum() + last.abs().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.abs().sum() for g in first), leaves)
        found.append((out, last, *first, *second))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("softplus", [False, True])
def test_a_sequence_in_two_pieces(is_complex: bool, softplus: bool) -> None:
    """The second from the first one's last state; gradients too."""
    inputs = _inputs(40, is_complex=is_complex, groups=2)
    leaves = {n: t.requires_grad_() for n, t in _widened(inputs).items()}
    whole, last = ops.selective_scan(**leaves, delta_softplus=softplus, return_last_state=True)

    def piece(first: int, end: int) -> dict[str, Tensor]:
        places = {"u": 1, "delta": 1, "z": 1, "B": 1 + is_complex, "C": 1 + is_complex}
        return {
            n: t[..., places[n] * first : places[n] * end] if n in places else t
            for n, t in leaves.items()
        }

    options = {"delta_softplus": softplus, "return_last_state": True}
    a, state = ops.selective_scan(**piece(0, 17), **options)
    b, end = ops.selective_scan(**piece(17, 40), **options, initial_state=state)
    torch.testing.assert_close(torch.cat([a, b], -1), whole)
    torch.testing.assert_close(end, last)
    wanted = torch.autograd.grad(whole.sum() + last.abs().sum(), list(leaves.values()))
    found = torch.autograd.grad(a.sum() + b.sum() + end.abs().sum(), list(leaves.values()))
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("backend", ["auto", "reference", "pytorch"])
def test_packed_sequences(backend: str) -> None:
    inputs = _inputs(30)
    ends = torch.tensor([0, 4, 5, 30], dtype=torch.int32)
    out, last = ops.selective_scan(
        **inputs, cu_seqlens=ends, return_last_state=True, backend=backend
    )
    for a, b in ((0, 4), (4, 5), (5, 30)):
        cut = {n: t[..., a:b] if t.dim() == 3 else t for n, t in inputs.items()}
        alone, end = ops.selective_scan(**cut, return_last_state=True, backend="reference")
        torch.testing.assert_close(out[..., a:b], alone)
    torch.testing.assert_close(last, end)
    for wrong in ([0, 4], [1, 30], [0, 4, 4, 30], []):
        with pytest.raises(ValueError, match="cu_seqlens is"):
            ops.selective_scan(**inputs, cu_seqlens=torch.tensor(wrong, dtype=torch.int32))


@pytest.mark.parametrize(
    ("ends", "error", "message"),
    [
        (torch.tensor([0, 4.5, 30]), TypeError, "cu_seqlens has dtype torch.float32"),
        (torch.tensor([[0, 4, 30]]), ValueError, r"cu_seqlens has shape \(1, 3\)"),
        ([0, 4, 30], TypeError, "cu_seqlens is a list"),
    ],
    ids=["real", "two axes", "list"],
)
def test_boundaries_are_a_list_of_whole_numbers(
    ends: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ops.selective_scan(**_inputs(30), cu_seqlens=ends)


def test_backends_without_complex_states_say_so() -> None:
    inputs = _inputs(5, is_complex=True)
    with pytest.raises(RuntimeError, match=r"'cpu' does not support .*it has no complex_scan"):
        ops.selective_scan(**inputs, backend="cpu")
    with pytest.raises(TypeError, match="but A is real"):
        ops.selective_scan(**(_inputs(5, variable_B=False) | {"B": inputs["A"]}))
    with pytest.raises(TypeError, match="expected a real one"):
        ops.selective_scan(**(inputs | {"C": torch.randn(2, 8, 10, dtype=torch.complex64)}))


def test_vmambas_calls() -> None:
    """By keywords with backend=None or a name of its own, and by its positions."""
    t = _inputs(20, torch.float16, groups=2, has_z=False)
    for name in (None, "oflex", "core", "mamba", "torch"):
        out = ops.selective_scan_fn(**t, delta_softplus=True, oflex=True, backend=name)
        assert out.dtype == torch.float32
    wide = {n: v.float() if n == "u" else v for n, v in t.items()}
    torch.testing.assert_close(out, ops.selective_scan(**wide, delta_softplus=True))
    by_position = vmamba.selective_scan_fn(*t.values(), True, True, None)
    torch.testing.assert_close(by_position, out)
    assert vmamba.selective_scan_fn(*t.values(), True, False, None).dtype == torch.float16


# ---- one step


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [(False,) * 3, (True,) * 3, (False, True, False)], ids=str)
def test_steps_are_the_scan(dtype: torch.dtype, options: tuple[bool, ...]) -> None:
    inputs = _inputs(9, dtype, **dict(zip(("has_D", "has_z", "has_bias"), options, strict=True)))
    expected, last = ops.selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    state = torch.zeros_like(last)
    t = {n: v.requires_grad_() for n, v in inputs.items()}
    outs = [
        ops.selective_state_update(
            state, t["u"][..., i], t["delta"][..., i], t["A"], t["B"][..., i], t["C"][..., i],
            t.get("D"), t["z"][..., i] if "z" in t else None, t.get("delta_bias"), True,
        )
        for i in range(9)
    ]  # fmt: skip
    assert not state.requires_grad
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(torch.stack(outs, -1), expected, rtol=tolerance, atol=4 * tolerance)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)


def test_a_step_of_heads_groups_and_rows_of_a_larger_state() -> None:
    H, D, N, G = 6, 3, 5, 2
    state, x, dt = torch.randn(4, H, D, N), torch.randn(2, H, D), torch.rand(2, H, D)
    A, maps = -torch.rand(H, D, N), torch.randn(2, 2, G, N)
    skip, bias, z = torch.randn(H, D), torch.rand(H, D), torch.randn(2, H, D)
    rows = torch.tensor([3, 1])
    before = state.clone()
    out = ops.selective_state_update(state, x, dt, A, maps[0], maps[1], skip, z, bias, True, rows)
    assert torch.equal(state[[0, 2]], before[[0, 2]])
    for head in range(H):
        alone = before[rows][:, head].clone()
        expected = ops.selective_state_update(
            alone, x[:, head], dt[:, head], A[head], *maps[:, :, head // (H // G)], skip[head],
            z[:, head], bias[head], True,
        )  # fmt: skip
        torch.testing.assert_close(out[:, head], expected)
        torch.testing.assert_close(state[rows][:, head], alone)


@pytest.mark.parametrize("name", ["x", "dt", "A", "B", "C", "D", "z", "dt_bias"])
def test_a_step_names_what_does_not_fit(name: str) -> None:
    good = {
        "x": torch.ones(2, 4), "dt": torch.ones(2, 4), "A": torch.ones(4, 3),
        "B": torch.ones(2, 3), "C": torch.ones(2, 3), "D": torch.ones(4), "z": torch.ones(2, 4),
        "dt_bias": torch.ones(4),
    }  # fmt: skip
    state = torch.zeros(2, 4, 3)
    ops.selective_state_update(state, **good)
    with pytest.raises(ValueError, match=rf"^{name} has shape"):
        ops.selective_state_update(state, **(good | {name: good[name][..., :-1]}))


@pytest.mark.parametrize("name", ["state", "x", "dt", "A", "B", "C", "D", "z", "dt_bias"])
def test_a_step_takes_real_tensors_of_one_device(name: str) -> None:
    """Complex A lost its imaginary part, and whole numbers their fractions, in silence."""
    good = {
        "state": torch.zeros(2, 4, 3), "x": torch.ones(2, 4), "dt": torch.ones(2, 4),
        "A": torch.ones(4, 3), "B": torch.ones(2, 3), "C": torch.ones(2, 3), "D": torch.ones(4),
        "z": torch.ones(2, 4), "dt_bias": torch.ones(4),
    }  # fmt: skip
    for wrong in (good[name].to(torch.complex64), good[name].int()):
        with pytest.raises(TypeError, match=f"^{name} has dtype"):
            ops.selective_state_update(**(good | {name: wrong}))
    with pytest.raises(TypeError, match=f"^{name} is a list"):
        ops.selective_state_update(**(good | {name: good[name].tolist()}))
    with pytest.raises(ValueError, match=r"is on .*, expected"):
        ops.selective_state_update(**(good | {name: good[name].to("meta")}))
