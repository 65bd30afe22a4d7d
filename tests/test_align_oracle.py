"""Every backend and door against the slow oracle, over drawn calls."""

from __future__ import annotations

import math

import torch
from hypothesis import given

from . import oracle
from .backends import Backend, assert_same_bits, every_backend
from .strategies import FLOATS, INTEGERS, Call, calls, examples


def reach(call: Call) -> float:
    """Largest weight that an extrapolation of this call can have: a distance over the shortest gap."""
    times, targets = call.times, call.targets
    if call.options["extrapolate"] != "linear" or times.numel() < 2 or targets.numel() == 0:
        return 1.0
    flat = times.flatten().sort().values
    gaps = (times[..., 1:] - times[..., :-1]).double()
    shortest = gaps[gaps > 0].min() if bool((gaps > 0).any()) else torch.tensor(1.0)
    span = max(int((targets - flat[0]).abs().max()), int((targets - flat[-1]).abs().max())) + 60
    return span / float(shortest)


def assert_close(got: torch.Tensor, want: torch.Tensor, call: Call, name: str) -> None:
    """Within a few roundings of the coarsest dtype involved; angles compare on the circle, quaternions either sign.

    Extrapolation amplifies roundings by its weight. Beyond half a turn the sign of a quaternion is a convention.
    """
    a, b = got.double(), want.double()
    assert torch.equal(a.isnan(), b.isnan())
    a, b = a.nan_to_num(0.0), b.nan_to_num(0.0)
    weight = 1.0
    if name.startswith("slerp") and call.options["extrapolate"] == "linear":
        dot = (a * b).unflatten(-1, (-1, 4)).sum(-1, keepdim=True)
        b = (b.unflatten(-1, (-1, 4)) * torch.where(dot < 0, -1.0, 1.0)).flatten(-2)
    if name in ("angle", "slerp_xyzw", "slerp_wxyz"):
        weight = reach(call)
    difference = (a - b).abs()
    if name == "angle":
        difference = torch.minimum(difference, (2 * math.pi - difference).abs())
    largest = call.values.double().abs().amax().clamp_min(1.0) if call.values.numel() else torch.tensor(1.0).double()
    limit = 16 * torch.finfo(got.dtype).eps * b.abs() + 16 * eps_of(call) * weight * largest
    assert bool((difference <= limit).all()), f"{name}: off by {float((difference / limit).max())} limits"


def eps_of(call: Call) -> float:
    """Precision of the arithmetic and of the weight."""
    if call.values.dtype != torch.float64 or call.times.dtype == torch.float32:
        return torch.finfo(torch.float32).eps
    return torch.finfo(torch.float64).eps


def check(backend: Backend, call: Call) -> None:
    if backend.needs_torch_dtype(*call.dtypes):
        return
    out, valid = backend.resample(call.values, call.times, call.targets, return_valid=True, **call.options)
    out, valid = out.cpu(), valid.cpu()
    want, want_valid = oracle.resample(call.values, call.times, call.targets, **call.options)
    assert_same_bits(valid, want_valid, "valid")
    assert out.shape == want.shape and out.dtype == want.dtype
    for columns, name in oracle.groups_of(call.options["kind"], call.values.shape[-1]):
        if name == "linear" or name in oracle.STEP_KINDS:
            assert_same_bits(out[..., columns], want[..., columns], name)
        else:
            assert_close(out[..., columns], want[..., columns], call, name)


@every_backend
@examples(200)
@given(call=calls(value_dtypes=FLOATS))
def test_floating_values(backend: Backend, call: Call) -> None:
    check(backend, call)


@every_backend
@examples(80)
@given(call=calls(value_dtypes=INTEGERS))
def test_integer_values(backend: Backend, call: Call) -> None:
    check(backend, call)


def test_the_oracle_tells_right_from_wrong() -> None:
    """The oracle on numbers done by hand, so that it is not only ever compared with what it judges."""
    values = torch.tensor([[[0.0], [10.0], [20.0]]])
    times, targets = torch.tensor([[0, 10, 30]]), torch.tensor([[-5, 0, 4, 10, 15, 20, 25, 30, 35]])
    for kind, expected in {
        "linear": [0, 0, 4, 10, 12.5, 15, 17.5, 20, 20],
        "nearest": [0, 0, 0, 10, 10, 10, 20, 20, 20],
        "previous": [0, 0, 0, 10, 10, 10, 10, 20, 20],
        "next": [0, 0, 10, 10, 20, 20, 20, 20, 20],
    }.items():
        out, valid = oracle.resample(values, times, targets, kind=kind, max_gap=10)
        assert out[0, :, 0].tolist() == expected
        assert valid[0].tolist() == [False, True, True, True, False, False, False, True, False]
