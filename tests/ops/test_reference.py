"""The reference against an independent closed form, and its gradients against differences."""

from __future__ import annotations

import torch
from cases import ScanCase, SS2DCase, make_scan, make_ss2d, relative_error
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from swin_umamba_ops.backends import reference
from swin_umamba_ops.scan_order import visiting_order


def _dense_scan(u: Tensor, dt: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor) -> Tensor:
    """out_l = sum over m <= l of Cs_l exp(A (S_l - S_m)) Bs_m dt_m u_m, S the running sum of dt.

    u, dt: (B, D, L); A: (D, N); Bs, Cs: (B, N, L). No recursion: all pairs (l, m) at once.
    """
    total = dt.cumsum(-1)
    span = total[..., :, None] - total[..., None, :]
    weight = torch.exp(A[None, :, :, None, None] * span[:, :, None]).tril()
    return torch.einsum("bnl,bdnlm,bnm,bdm->bdl", Cs, weight, Bs, dt * u)


def test_selective_scan_equals_the_closed_form() -> None:
    t = make_scan(ScanCase(2, 5, 23, 3))
    dt = torch.nn.functional.softplus(t["delta"] + t["delta_bias"][:, None])
    expected = _dense_scan(t["u"], dt, t["A"], t["B"][:, 0], t["C"][:, 0])
    expected = expected + t["D"][:, None] * t["u"]
    actual, _ = reference.selective_scan(
        t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], t["delta_bias"], True
    )
    assert relative_error(actual, expected) < 1e-13


def test_groups_share_their_maps() -> None:
    t = make_scan(ScanCase(2, 6, 11, 3, 2))
    whole, last = reference.selective_scan(t["u"], t["delta"], t["A"], t["B"], t["C"])
    for group in range(2):
        d = slice(3 * group, 3 * group + 3)
        g = slice(group, group + 1)
        part, part_last = reference.selective_scan(
            t["u"][:, d], t["delta"][:, d], t["A"][d], t["B"][:, g], t["C"][:, g]
        )
        torch.testing.assert_close(whole[:, d], part)
        torch.testing.assert_close(last[:, d], part_last)


def test_ss2d_equals_the_closed_form_direction_by_direction() -> None:
    case = SS2DCase(2, 4, 3, 5, 3, 2)
    t = make_ss2d(case)
    expected = torch.zeros(case.B, case.D, case.H * case.W, dtype=torch.float64)
    for k, order in enumerate(visiting_order(case.H, case.W)):
        x = t["x"].flatten(2)[:, :, order]
        projected = torch.einsum("cd,bdl->bcl", t["x_proj_weight"][k], x)
        dt_r, Bs, Cs = projected.split([case.R, case.N, case.N], dim=1)
        raw = torch.einsum("dr,brl->bdl", t["dt_projs_weight"][k], dt_r)
        dt = torch.nn.functional.softplus(raw + t["dt_projs_bias"][k][:, None])
        d = slice(k * case.D, (k + 1) * case.D)
        y = _dense_scan(x, dt, -torch.exp(t["A_logs"][d]), Bs, Cs) + t["Ds"][d][:, None] * x
        expected[:, :, order] += y
    assert relative_error(reference.ss2d(*t.values()).flatten(2), expected) < 1e-13


def test_gradients_of_ss2d() -> None:
    t = make_ss2d(SS2DCase(1, 2, 3, 2, 2, 1))
    leaves = [v.requires_grad_() for v in t.values()]
    assert gradcheck(reference.ss2d, leaves)
    assert gradgradcheck(reference.ss2d, leaves)


def test_gradients_of_selective_scan() -> None:
    t = make_scan(ScanCase(1, 4, 5, 2, 2))
    del t["z"]
    leaves = [v.requires_grad_() for v in t.values()]

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return reference.selective_scan(*tensors, delta_softplus=True)

    assert gradcheck(scan, leaves)
    assert gradgradcheck(scan, leaves)
