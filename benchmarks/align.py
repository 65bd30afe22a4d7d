"""Runs one align case: checks it, counts its bytes, times ours and the peers over the same rotated inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import peers
from .cases import Case, Inputs, bind_op, bind_public, build, call_public, has_plain_op
from .timing import GraphTimer, Timer, WallTimer, eager_wall_us
from .traffic import bytes_moved

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a run measures."""

    device: str
    repeats: int = 100
    ours_only: bool = False
    compile_modes: tuple[str, ...] = ("default",)
    compile_all: bool = False  # compile peers for every case, not only for the published rows and their variants
    rotate_bytes: int = 256 << 20  # sets rotate until their bytes exceed this: several times an H200's 60 MB L2
    max_sets: int = 256
    warm: bool = True
    check: str = "reference"  # or "peer": the obvious torch code, to its own rounding


class CheckFailed(AssertionError):
    """A variant's answer is not what it must be; no time is written for it."""


def make_timer(plan: Plan) -> Timer:
    return GraphTimer() if plan.device == "cuda" else WallTimer()


def _first(result: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return result if isinstance(result, tuple) else (result, None)


def ulps(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest distance in units in the last place of the coarser of the dtype and float32; NaN equals NaN, 0 is -0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise CheckFailed(f"shapes or dtypes differ: {tuple(a.shape)} {a.dtype}, {tuple(b.shape)} {b.dtype}")
    if not a.dtype.is_floating_point:
        return 0.0 if torch.equal(a, b) else math.inf
    if a.numel() == 0:
        return 0.0
    nan = torch.isnan(a)
    if not torch.equal(nan, torch.isnan(b)):
        return math.inf
    a64, b64 = a.double().masked_fill(nan, 0.0), b.double().masked_fill(nan, 0.0)
    fine = torch.float32 if a.dtype == torch.float64 else a.dtype
    info = torch.finfo(fine)
    size = torch.maximum(a64.abs(), b64.abs()).clamp_min(info.tiny)
    unit = torch.exp2(torch.floor(torch.log2(size))) * info.eps
    distance = torch.where(a64 == b64, torch.zeros_like(a64), (a64 - b64).abs() / unit)
    return float(distance.nan_to_num(nan=math.inf, posinf=math.inf).max())


def check_ours(case: Case, inputs: Inputs, against: str = "reference") -> dict[str, Any]:
    """Compares the native kernel with the torch reference on the same device, before anything is timed."""
    backend = inputs.targets.device.type
    got, got_valid = _first(call_public(inputs, backend=backend))
    if against == "peer":
        peer = peers.obvious(case)(*peers.peer_arguments(inputs))
        return {"reference": "peer", **check_peer(case, "robocache against the peer", peer, got)}
    want, want_valid = _first(call_public(inputs, backend="torch"))
    distance = ulps(got, want)
    same_valid = got_valid is None or (want_valid is not None and torch.equal(got_valid, want_valid))
    limit = 0.0 if case.exact else 2.0
    if distance > limit or not same_valid or not bool(torch.isfinite(got).all()):
        raise CheckFailed(f"robocache is {distance} ulp (limit {limit}) off the reference; masks equal: {same_valid}")
    return {"reference": "torch", "ulp": distance, "limit": limit}


def check_peer(case: Case, name: str, got: torch.Tensor, ours: torch.Tensor) -> dict[str, float]:
    """A peer must compute the same thing, to its own rounding; where ties are cut differently 0.1 % may differ."""
    a, b = got.double(), ours.double()
    near = a == b
    if ours.dtype.is_floating_point and b.numel():
        size = torch.maximum(a.abs(), b.abs())
        near = (a - b).abs() <= 2 * torch.finfo(ours.dtype).eps * size + 1e-4 * b.abs().max()
    share = float(near.double().mean()) if near.numel() else 1.0
    # slerp's acos loses digits for near quaternions, and an angle may lie on either side of the cut
    kinds = {kind for stream in case.streams for _, _, kind in stream.groups()}
    needed = 0.99 if kinds & {"angle", "slerp_xyzw", "slerp_wxyz"} else 0.999
    if share < needed:
        raise CheckFailed(f"{name}: {share:.4%} of its outputs agree with robocache")
    return {"agree": share}


def _sets(case: Case, plan: Plan) -> list[Inputs]:
    """Input sets to rotate through."""
    first = build(case, plan.device, seed=0)
    out = case.batch * case.targets * case.columns * first.streams[0]["values"].element_size()
    one = sum(t.numel() * t.element_size() for t in first.tensors()) + out
    count = max(2, min(plan.max_sets, math.ceil(plan.rotate_bytes / max(one, 1))))
    return [first] + [build(case, plan.device, seed=k) for k in range(1, count)]


def _peer(function: Callable[..., Any], inputs: Inputs) -> Callable[[], Any]:
    arguments = peers.peer_arguments(inputs)
    return lambda: function(*arguments)


def _measure(calls: Sequence[Callable[[], Any]], timer: Timer, plan: Plan) -> dict[str, Any]:
    timed: dict[str, Any] = {"cold": timer.measure(calls, plan.repeats).as_dict()}
    if plan.warm and plan.device == "cuda":
        timed["warm"] = timer.measure(calls[:1], plan.repeats).as_dict()
    return timed


def _peer_functions(case: Case, plan: Plan) -> dict[str, Callable[..., Any]]:
    if plan.ours_only or not peers.supports(case):
        return {}
    function = peers.obvious(case)
    found: dict[str, Callable[..., Any]] = {"eager": function}
    if plan.compile_all or case.tags & {"numbers", "int64", "random"}:
        for mode in plan.compile_modes:
            torch._dynamo.reset()
            name = "compile" if mode == "default" else f"compile-{mode}"
            found[name] = torch.compile(function, mode=None if mode == "default" else mode, dynamic=False)
    return found


def _synchronize(plan: Plan) -> Callable[[], None]:
    return torch.cuda.synchronize if plan.device == "cuda" else lambda: None


def run_case(case: Case, plan: Plan, timer: Timer, bandwidth: float | None, say: Say) -> dict[str, Any]:
    """One row of the results. An error in ours ends the case; an error in a peer is noted beside that peer."""
    row: dict[str, Any] = {"name": case.name, **case.describe(), "variants": {}, "errors": {}}
    with torch.no_grad():
        sets = _sets(case, plan)
        row["sets"] = len(sets)
        row["rotated_bytes"] = len(sets) * sum(t.numel() * t.element_size() for t in sets[0].tensors())
        say("check")
        row["check"] = [check_ours(case, inputs, plan.check) for inputs in (sets[0], sets[-1])]
        ours, valid = _first(call_public(sets[0], backend=plan.device))
        row["bytes"] = bytes_moved(sets[0], ours, valid)

        calls = [bind_public(inputs, backend=plan.device) for inputs in sets]
        say("robocache")
        row["variants"]["robocache"] = _measure(calls, timer, plan)
        if plan.device == "cuda":
            wall = eager_wall_us(calls, 200, _synchronize(plan))
            row["variants"]["robocache"]["eager_wall_us"] = wall
            if has_plain_op(case):
                _optional(row, "op", lambda: _measure([bind_op(i) for i in sets], timer, plan))
        for name, function in _peer_functions(case, plan).items():
            say(name)
            _optional(row, name, lambda n=name, f=function: _peer_row(case, n, f, sets, ours, timer, plan))
    _ratios(row, bandwidth)
    return row


def _peer_row(
    case: Case, name: str, function: Callable[..., Any], sets: list[Inputs], ours: Any, timer: Timer, plan: Plan
) -> dict[str, Any]:
    calls = [_peer(function, inputs) for inputs in sets]
    agreement = check_peer(case, name, calls[0](), ours)
    return {**_measure(calls, timer, plan), **agreement}


def _optional(row: dict[str, Any], name: str, measure: Callable[[], dict[str, Any]]) -> None:
    try:
        row["variants"][name] = measure()
    except Exception as error:  # one variant's failure must not lose the others; the run still ends non-zero
        row["errors"][name] = f"{type(error).__name__}: {error}".splitlines()[0][:500]


def _ratios(row: dict[str, Any], bandwidth: float | None) -> None:
    ours = row["variants"]["robocache"]["cold"]["median"]
    if bandwidth:
        row["bytes_per_second"] = row["bytes"]["total"] / (ours * 1e-6)
        row["floor_us"] = row["bytes"]["total"] / bandwidth * 1e6
        row["share_of_bandwidth"] = row["bytes_per_second"] / bandwidth
    row["speedup"] = {
        name: variant["cold"]["median"] / ours for name, variant in row["variants"].items() if name != "robocache"
    }
