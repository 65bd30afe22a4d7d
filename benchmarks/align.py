"""Runs one align case: checks it, counts its bytes, times ours and the peers over the same rotated inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from . import peers
from .cases import Case, Inputs, bind_op, bind_public, build, call_public, has_plain_op
from .measure import (
    CheckFailed,
    Plan,
    Say,
    agree,
    make_timer,
    measure,
    optional,
    ratios,
    ulps,
)
from .timing import Timer
from .traffic import bytes_moved

__all__ = ["CheckFailed", "Plan", "check_ours", "check_peer", "make_timer", "run_case", "ulps"]


def _first(result: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return result if isinstance(result, tuple) else (result, None)


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
    # slerp's acos loses digits for near quaternions, and an angle may lie on either side of the cut
    kinds = {kind for stream in case.streams for _, _, kind in stream.groups()}
    return agree(name, got, ours, 0.99 if kinds & {"angle", "slerp_xyzw", "slerp_wxyz"} else 0.999)


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
        row["variants"]["robocache"] = measure(calls, timer, plan)
        if plan.device == "cuda" and has_plain_op(case):
            optional(row, "op", lambda: measure([bind_op(i) for i in sets], timer, plan))
        for name, function in _peer_functions(case, plan).items():
            say(name)
            optional(row, name, lambda n=name, f=function: _peer_row(case, n, f, sets, ours, timer, plan))
    ratios(row, bandwidth)
    return row


def _peer_row(
    case: Case, name: str, function: Callable[..., Any], sets: list[Inputs], ours: Any, timer: Timer, plan: Plan
) -> dict[str, Any]:
    calls = [_peer(function, inputs) for inputs in sets]
    agreement = check_peer(case, name, calls[0](), ours)
    return {**measure(calls, timer, plan), **agreement}
