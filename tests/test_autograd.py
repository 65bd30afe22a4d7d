"""Gradients: checked against finite differences in float64, against the reference, and for repeatability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import robocache

KINDS: dict[str, Any] = {
    **{name: name for name in ("linear", "nearest", "previous", "next", "pchip", "slerp_xyzw", "slerp_wxyz", "angle")},
    "mixed": [(slice(0, 4), "slerp_wxyz"), (slice(4, 6), "pchip"), (6, "previous"), (7, "linear")],
}
FORMS = ("dense", "shared", "lengths", "rows", "packed", "packed rows")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def problem(form: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """values, times, targets and options; 8 columns; targets inside and outside."""
    times = torch.rand(2, 6, dtype=dtype).sort(-1).values * 6
    values = torch.randn(2, 6, 8, dtype=dtype)
    options: dict[str, Any] = {}
    batch = 2
    if form == "shared":
        times = times[0]
    if form == "lengths":
        options["lengths"] = torch.tensor([6, 3])
    if "packed" in form:
        values, times = values.reshape(12, 8), times.reshape(12)
        options["row_splits"] = torch.tensor([0, 6, 12])
    if "rows" in form:
        batch = 4
        options["rows"] = torch.tensor([1, 0, 1, 1])
    targets = torch.rand(batch, 5, dtype=dtype) * 6
    return values, times, targets, options


def resample(values: Tensor, times: Tensor, targets: Tensor, **options: Any) -> Tensor:
    result: Tensor = robocache.resample_trajectories(values, times, targets, **options)
    return result


def check(function: Callable[..., Any], *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, tuple(tensor.clone().requires_grad_() for tensor in inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_values(kind: str, form: str) -> None:
    values, times, targets, options = problem(form)
    check(lambda v: resample(v, times, targets, kind=KINDS[kind], **options), values)


@pytest.mark.parametrize("extrapolate", ["clamp", "linear", "nan"])
@pytest.mark.parametrize("kind", ["linear", "pchip", "slerp_xyzw", "angle"])
def test_gradcheck_extrapolate(kind: str, extrapolate: str) -> None:
    values, times, _, _ = problem("dense")
    targets = torch.tensor([-1.0, 7.0, 3.1], dtype=torch.float64)

    def known(v: Tensor) -> Tensor:
        return torch.nan_to_num(resample(v, times, targets, kind=kind, extrapolate=extrapolate))

    check(known, values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["linear", "pchip"])
def test_gradcheck_targets(kind: str, form: str) -> None:
    values, times, targets, options = problem(form)
    check(lambda t: resample(values, times, t, kind=kind, extrapolate="linear", **options), targets)
    check(lambda v, t: resample(v, times, t, kind=kind, **options), values, targets)


def test_gradcheck_shared_targets() -> None:
    values, times, targets, _ = problem("dense")
    check(lambda v, t: resample(v, times, t), values, targets[0])


def test_gradcheck_fuse() -> None:
    values, times, targets, _ = problem("dense")
    other = torch.randn(2, 6, 3, dtype=torch.float64)

    def fused(v: Tensor, w: Tensor, t: Tensor) -> Tensor:
        first = robocache.Stream(v, times, lengths=torch.tensor([4, 6]))
        second = robocache.Stream(w, times[0], kind="pchip", rows=torch.tensor([1, 1]), time_offset=0.1)
        out, _ = robocache.fuse_multimodal([first, second], t, return_valid=True)
        return out

    check(fused, values, other, targets)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    values, times, targets, _ = problem("dense")
    times.requires_grad_()
    assert not resample(values, times, targets).requires_grad
    values.requires_grad_()
    resample(values, times, targets).sum().backward()
    assert values.grad is not None
    assert times.grad is None
    targets.requires_grad_()
    resample(values, times, targets, kind="nearest").sum().backward()
    assert targets.grad is None or not targets.grad.any()
    with torch.no_grad():
        assert not resample(values, times, targets).requires_grad


def test_integers_have_no_gradient() -> None:
    _, times, targets, _ = problem("dense")
    whole = torch.randint(0, 9, (2, 6, 2))
    assert not resample(whole, times, targets, kind="previous").requires_grad
    floating = torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True)
    streams = [robocache.Stream(whole, times, kind="nearest"), robocache.Stream(floating, times)]
    robocache.fuse_multimodal(streams, targets.detach()).sum().backward()
    assert floating.grad is not None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_has_the_same_gradient(kind: str, form: str) -> None:
    values, times, targets, options = problem(form)
    values.requires_grad_()
    grads = []
    for backend in ("cpu", "torch"):
        out = resample(values, times, targets, kind=KINDS[kind], backend=backend, **options)
        grads.append(torch.autograd.grad(out.square().sum(), values)[0])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("out_dtype", [None, torch.float32])
def test_lower_precision(dtype: torch.dtype, out_dtype: torch.dtype | None) -> None:
    values, times, targets, options = problem("rows")
    exact = values.to(dtype).double().requires_grad_()
    resample(exact, times, targets, **options).sum().backward()
    rounded = values.to(dtype).requires_grad_()
    resample(rounded, times, targets, out_dtype=out_dtype, **options).sum().backward()
    assert rounded.grad is not None
    assert exact.grad is not None
    assert rounded.grad.dtype == dtype
    torch.testing.assert_close(rounded.grad.double(), exact.grad, rtol=1e-2, atol=1e-2)


def test_backward_repeats_bit_for_bit() -> None:
    values = torch.randn(3, 50, 16)
    times = torch.arange(50.0)
    rows = torch.randint(0, 3, (64,))
    targets = torch.rand(64, 200) * 50
    grads = []
    for _ in range(3):
        leaf = values.clone().requires_grad_()
        robocache.resample_trajectories(leaf, times, targets, rows=rows).square().sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


def test_the_native_backward_ran() -> None:
    values, times, targets, _ = problem("dense")
    before = robocache.launch_counts()["align_backward_cpu"]
    resample(values.requires_grad_(), times, targets).sum().backward()
    assert robocache.launch_counts()["align_backward_cpu"] == before + 1


def test_strided_and_expanded_gradients() -> None:
    values, times, targets, _ = problem("dense")
    leaf = values.clone().requires_grad_()
    resample(leaf, times, targets).sum().backward()  # an expanded gradient
    direct = leaf.grad
    leaf.grad = None
    ones = torch.ones(8, 5, 2, dtype=torch.float64).permute(2, 1, 0)
    resample(leaf, times, targets).backward(ones)
    assert direct is not None
    assert leaf.grad is not None
    assert torch.equal(direct, leaf.grad)


def test_out_refuses_gradients() -> None:
    values, times, targets, _ = problem("dense")
    out = torch.empty(2, 5, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="^out: expected None where a gradient is wanted"):
        resample(values.requires_grad_(), times, targets, out=out)
    with torch.no_grad():
        assert resample(values, times, targets, out=out) is out
